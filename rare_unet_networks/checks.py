"""What a scan has to be before anything is computed from it."""

from __future__ import annotations

import logging
import math
from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from .levels import by, spacing_of

__all__ = ["CheckScand"]

logger = logging.getLogger(__name__)


class CheckScand(MapTransform):
    """Refuses what the network cannot segment, with one clear reason, before anything is computed from it.

    Args:
        keys: scans, shape (C, D, H, W), as loaded.
        channels: number of channels expected.
        spatial_dims: number of spatial axes expected.
        max_extent: warn if the field of view is longer than this on an axis, mm.

    Raises:
        ValueError: on a wrong number of channels or axes, voxels that are not finite or all equal, or an affine whose
            spacing is 0, NaN or infinite.
    """

    def __init__(
        self, keys: KeysCollection, channels: int = 1, spatial_dims: int = 3, max_extent: float | None = None
    ) -> None:
        super().__init__(keys)
        self.channels = channels
        self.spatial_dims = spatial_dims
        self.max_extent = max_extent

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        for key in self.keys:
            self._check(data[key])
        return dict(data)

    def _check(self, scan: MetaTensor) -> None:
        if scan.ndim != self.spatial_dims + 1:
            raise ValueError(f"expected {self.spatial_dims} spatial axes, got a scan of shape {by(scan.shape[1:])}")
        if scan.shape[0] != self.channels:
            raise ValueError(f"expected {self.channels} channel(s), got {scan.shape[0]}")
        if not torch.isfinite(scan).all():
            raise ValueError("the scan has voxels that are NaN or infinite")
        if scan.min() == scan.max():
            raise ValueError(f"the scan is constant (every voxel is {float(scan.min()):g}), nothing is to be seen")
        spacing = spacing_of(scan.affine, self.spatial_dims)
        if not all(math.isfinite(s) and s > 0 for s in spacing):
            raise ValueError(f"spacing must be finite and above 0 mm, the affine says {by(spacing)}")
        extent = [n * s for n, s in zip(scan.shape[1:], spacing)]
        if self.max_extent is not None and max(extent) > self.max_extent:
            name = scan.meta.get("filename_or_obj", "scan")
            logger.warning(
                f"{name}: field of view {by(extent)} mm, the network was trained on "
                f"crops of at most {self.max_extent:g} mm and may segment the wrong place: crop around the structure."
            )
