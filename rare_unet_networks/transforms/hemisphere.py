"""Brains without tumour, made of real ones: the healthy half, seen twice.

Every scan of a tumour data set shows a tumour; a network trained on such alone finds one in every brain. Most tumours
lie in one half, so that the other half and its mirror image make a brain without any. It is more symmetric than a real
one, and has a seam where the halves meet.
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
    """A brain of its half with less tumour and that half's mirror image.

    Args:
        image: shape (C, D, H, W), left-right along the first spatial axis (as in RAS), background 0.
        label: tumour where it is above 0, shape (1, D, H, W).
        most: share of the tumour that the better half may hold; those voxels become background.

    Returns:
        image of the same shape, what tumour there is in the middle of an odd number of sagittal slices 0, too; None if
        both halves hold more.
    """
    filled = (image != 0).any(dim=0).any(dim=1).any(dim=1).nonzero()
    if len(filled) == 0:
        return None
    first, last = int(filled.min()), int(filled.max())
    half = (last - first + 1) // 2
    low, high = slice(first, first + half), slice(last + 1 - half, last + 1)
    tumour = [int((label[:, part] > 0).sum()) for part in (low, high)]
    if min(tumour) > most * sum(tumour):
        return None
    healthy, other = (low, high) if tumour[0] < tumour[1] else (high, low)
    head = image.clone()
    head[:, healthy] = torch.where(label[:, healthy] > 0, 0, image[:, healthy])
    head[:, other] = head[:, healthy].flip(1)
    middle = slice(first + half, last + 1 - half)
    head[:, middle] = torch.where(label[:, middle] > 0, 0, image[:, middle])
    return head


class RandMirrorHealthyHemisphered(RandomizableTransform, MapTransform):
    """Replaces a brain by one :py:func:`mirror_healthy_hemisphere`, if it has a healthy half, its label by background.

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
        head = mirror_healthy_hemisphere(torch.cat(images), label)  # of one extent, the same half of all
        if head is None:
            return d
        for key, image in zip(self.keys, head.split([len(image) for image in images])):
            d[key] = MetaTensor(image.contiguous()).copy_meta_from(d[key])
        d[self.label_key] = MetaTensor(torch.zeros_like(label)).copy_meta_from(d[self.label_key])
        return d
