"""A transform that brings every case to the paper's standard size."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Pad, SpatialCrop

__all__ = ["CenterCropOrPadd"]


class CenterCropOrPadd(MapTransform):
    """Crops or pads with zeros, about the centre, to the paper's standard size.

    An odd voxel is cropped or added at the start of an axis.

    Args:
        keys: images or labels, shape (C, D, H, W).
        spatial_size: voxels.
    """

    def __init__(self, keys: KeysCollection, spatial_size: Sequence[int]) -> None:
        super().__init__(keys)
        self.spatial_size = spatial_size

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.keys:
            excess = [n - m for n, m in zip(d[key].shape[1:], self.spatial_size)]
            start = [max(0, (e + 1) // 2) for e in excess]
            d[key] = SpatialCrop(roi_start=start, roi_end=[s + m for s, m in zip(start, self.spatial_size)])(d[key])
            margins = [(max(0, (1 - e) // 2), max(0, -e // 2)) for e in excess]
            d[key] = Pad([(0, 0), *margins], mode="constant", value=0)(d[key])
            d[key].applied_operations = []  # predictions are not inverted to the uncropped scan
        return d
