"""The grids of the levels: their voxel sizes, and the sizes that the network can process."""

from __future__ import annotations

import math
from collections.abc import Sequence

from monai.transforms.utils import compute_divisible_spatial_size
from monai.utils import ensure_tuple

from ..utils.geometry import format_size, is_near_spacing
from .scales import check_level, level_divisor, level_scale

__all__ = ["LevelGrids"]


class LevelGrids:
    """The grids of a task's levels. Arguments and errors as of :py:class:`ResolutionLevels`, which places scans."""

    def __init__(
        self,
        num_levels: int,
        spatial_size: Sequence[int] | None = None,
        spacing: Sequence[float] | None = None,
        num_stages: int | None = None,
        tolerance: float = 0.1,
    ) -> None:
        if num_levels < 1:
            raise ValueError(f"num_levels must be at least 1, got {num_levels}.")
        if spatial_size is None and spacing is None:
            raise ValueError("spatial_size or spacing (or both) must be given, got neither.")
        if spatial_size is not None and spacing is not None and len(spatial_size) != len(spacing):
            raise ValueError(f"spatial_size and spacing must have equally many axes, got {spatial_size} and {spacing}.")
        self.num_levels = num_levels
        self.num_stages = num_levels + 1 if num_stages is None else num_stages
        if self.num_stages < num_levels:
            raise ValueError(f"num_stages must be at least num_levels ({num_levels}), got {num_stages}.")
        if not tolerance >= 0:
            raise ValueError(f"tolerance must be 0 or more, got {tolerance}.")
        self.tolerance = tolerance
        self.spatial_dims = len(ensure_tuple(spatial_size if spatial_size is not None else spacing))
        self.spatial_size = None if spatial_size is None else self._checked_size(spatial_size)
        self.spacing = None if spacing is None else self._checked_spacing(spacing)

    def _checked_size(self, size: Sequence[int]) -> tuple[int, ...]:
        size = tuple(int(n) for n in size)
        if len(size) != self.spatial_dims:
            raise ValueError(f"spatial_size must have {self.spatial_dims} axes, got {len(size)}: {format_size(size)}.")
        if any(n < 1 for n in size):
            raise ValueError(f"spatial_size must be 1 voxel or more on every axis, got {format_size(size)}.")
        return size

    def _checked_spacing(self, spacing: Sequence[float]) -> tuple[float, ...]:
        spacing = tuple(float(s) for s in spacing)
        if len(spacing) != self.spatial_dims:
            raise ValueError(f"spacing must have {self.spatial_dims} axes, got {len(spacing)}: {format_size(spacing)}.")
        if not all(math.isfinite(s) and s > 0 for s in spacing):
            raise ValueError(f"spacing must be finite and above 0 mm on every axis, got {format_size(spacing)}.")
        return spacing

    def _checked_level(self, level: int) -> int:
        check_level(level, self.num_levels)
        return level

    def scale(self, level: int) -> tuple[int, ...]:
        """Ratio of a level's voxel size to that of level 0, one factor per axis."""
        return (level_scale(self._checked_level(level)),) * self.spatial_dims

    def level_spacing(self, level: int) -> tuple[float, ...]:
        """Voxel size of a level in mm."""
        if self.spacing is None:
            raise ValueError("spacing of level 0 is unknown: construct ResolutionLevels with spacing.")
        return tuple(s * factor for s, factor in zip(self.spacing, self.scale(level)))

    def is_level_spacing(self, spacing: Sequence[float], level: int) -> bool:
        """Whether a voxel size is that of a level, to the tolerance on every axis."""
        pairs = zip(self._checked_spacing(spacing), self.level_spacing(level))
        return all(is_near_spacing(s, t, self.tolerance) for s, t in pairs)

    def is_fine(self, spacing: Sequence[float]) -> bool:
        """Whether voxels are at most as large as those of level 0 on every axis, to the tolerance.

        Only a label as fine as that says what the prediction on the level 0 grid should be.
        """
        pairs = zip(self._checked_spacing(spacing), self.level_spacing(0))
        return all(s <= t or is_near_spacing(s, t, self.tolerance) for s, t in pairs)

    def divisor(self, level: int) -> int:
        """Number that every axis of a level's grid must be divisible by, see :py:func:`level_divisor`."""
        return level_divisor(level, self.num_levels, self.num_stages)

    def padded_size(self, spatial_size: Sequence[int], level: int) -> tuple[int, ...]:
        """Smallest size of at least ``spatial_size`` that a level can process.

        The deepest stage keeps at least two voxels, because instance normalisation fails on a single one.
        """
        k = self.divisor(level)
        padded = list(compute_divisible_spatial_size(self._checked_size(spatial_size), k))
        if all(n == k for n in padded):
            padded[0] += k
        return tuple(padded)

    def resampled_size(self, spatial_size: Sequence[int], spacing: Sequence[float], level: int) -> tuple[int, ...]:
        """Voxels over the same extent (mm) at the level's spacing; an axis within the tolerance is not resampled."""
        # To 3 decimals first: the last digits of an affine, which programs write differently, must not decide.
        return tuple(
            n if is_near_spacing(s, t, self.tolerance) else max(1, round(round(n * s / t, 3)))
            for n, s, t in zip(
                self._checked_size(spatial_size), self._checked_spacing(spacing), self.level_spacing(level)
            )
        )
