"""Augmentation for scans that are coarse along one axis only; inference resamples that axis to level 0."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTransform
from torch.nn import functional as F

from ..utils.geometry import LINEAR
from ..utils.resampling import as_plain_tensor

__all__ = ["RandAnisotropyd"]


class RandAnisotropyd(RandomizableTransform, MapTransform):
    """Simulates a scan with thick slices along a random axis, resampled to the grid of the image.

    The inferer does the same to a scan of 1×1×4 mm: a slice is the mean over its thickness, and the image is linear
    between slices.

    Args:
        keys: images, shape (C, D, H, W); labels keep their grid and need no change.
        prob: probability that the images are changed.
        thickness: range of the slice thickness in voxels.
    """

    def __init__(self, keys: KeysCollection, prob: float = 0.2, thickness: tuple[float, float] = (2.0, 5.0)) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.thickness = thickness

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        self.randomize(None)
        if not self._do_transform:
            return d
        position, thickness = self.R.random(), self.R.uniform(*self.thickness)
        for key in self.keys:
            size = list(d[key].shape[1:])
            axis = int(position * len(size))
            thick = [max(1, round(n / thickness)) if i == axis else n for i, n in enumerate(size)]
            slices = F.interpolate(as_plain_tensor(d[key])[None], thick, mode="area")
            smooth = F.interpolate(slices, size, mode=LINEAR[len(size)])[0]
            d[key] = MetaTensor(smooth).copy_meta_from(d[key])
        return d
