"""Random affine augmentation of labelled scans that have the voxels of different levels."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import RandAffined

from ..levels import level_scale
from .level_grids import LABEL_LEVEL

__all__ = ["RandAffineOfLeveld"]


def _divided(limits: Any, scale: int) -> Any:
    """Divides the numbers of a range as MONAI takes it: numbers, pairs of them or None, by axis."""
    if limits is None:
        return None
    if isinstance(limits, (tuple, list)):
        return tuple(_divided(limit, scale) for limit in limits)
    return limits / scale


class RandAffineOfLeveld(RandAffined):
    """``monai.transforms.RandAffined`` whose ``translate_range`` is in voxels of level 0, whatever the scan's voxels.

    The level of a scan is read from ``label_level``, which
    :py:class:`rare_unet_networks.transforms.ResampleToLabelLeveld` notes; without it the scan has level 0, and this is
    MONAI's transform. Arguments as there.
    """

    def __call__(self, data: Mapping[Hashable, torch.Tensor], lazy: bool | None = None) -> dict[Hashable, torch.Tensor]:
        grid = self.rand_affine.rand_affine_grid
        translate_range = grid.translate_range
        grid.translate_range = _divided(translate_range, level_scale(int(data.get(LABEL_LEVEL, 0))))
        try:
            return super().__call__(data, lazy=lazy)
        finally:
            grid.translate_range = translate_range
