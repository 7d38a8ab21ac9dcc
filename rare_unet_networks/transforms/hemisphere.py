"""Augmentation by brains without tumour, made of the healthy half of a real brain and its mirror image.

Every scan of a tumour data set shows a tumour, and a network trained on these scans alone segments one in every brain.
Most tumours lie in one half of the brain. The other half and its mirror image make a brain without tumour. It is more
symmetric than a real one and has a seam in the middle.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTransform

from ..utils.resampling import as_plain_tensor

__all__ = ["RandMirrorHealthyHemisphered", "mirror_healthy_hemisphere"]


def mirror_healthy_hemisphere(image: torch.Tensor, label: torch.Tensor, most: float = 0.02) -> torch.Tensor | None:
    """Builds a brain from the half with less tumour and the mirror image of that half.

    Args:
        image: shape (C, D, H, W), left-right along the first spatial axis (as in RAS), background 0.
        label: tumour where it is above 0, shape (1, D, H, W).
        most: largest fraction of the tumour that the healthier half may contain; these voxels become background.

    Returns:
        image of the same shape; None if both halves contain more tumour. If the number of sagittal slices is odd,
        tumour voxels of the middle slice become background, too.
    """
    nonzero_slices = (image != 0).any(dim=0).any(dim=1).any(dim=1).nonzero()
    if len(nonzero_slices) == 0:
        return None
    first, last = int(nonzero_slices.min()), int(nonzero_slices.max())
    half = (last - first + 1) // 2
    low, high = slice(first, first + half), slice(last + 1 - half, last + 1)
    tumour = [int((label[:, part] > 0).sum()) for part in (low, high)]
    if min(tumour) > most * sum(tumour):
        return None
    healthy, other = (low, high) if tumour[0] < tumour[1] else (high, low)
    brain = image.clone()
    brain[:, healthy] = torch.where(label[:, healthy] > 0, 0, image[:, healthy])
    brain[:, other] = brain[:, healthy].flip(1)
    middle = slice(first + half, last + 1 - half)
    brain[:, middle] = torch.where(label[:, middle] > 0, 0, image[:, middle])
    return brain


class RandMirrorHealthyHemisphered(RandomizableTransform, MapTransform):
    """Replaces a brain by that of :py:func:`mirror_healthy_hemisphere`, and its label by background.

    A brain without a healthy half is not changed.

    Args:
        keys: images, shape (C, D, H, W), in RAS order.
        label_key: their label, shape (1, D, H, W).
        prob: probability of a change.
    """

    def __init__(self, keys: KeysCollection, label_key: Hashable = "label", prob: float = 0.2) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.label_key = label_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        self.randomize(None)
        if not self._do_transform:
            return d
        label = as_plain_tensor(d[self.label_key])
        images = [as_plain_tensor(d[key]) for key in self.keys]
        brain = mirror_healthy_hemisphere(torch.cat(images), label)  # joined, so that all use the same half
        if brain is None:
            return d
        for key, image in zip(self.keys, brain.split([len(image) for image in images])):
            d[key] = MetaTensor(image.contiguous()).copy_meta_from(d[key])
        d[self.label_key] = MetaTensor(torch.zeros_like(label)).copy_meta_from(d[self.label_key])
        return d
