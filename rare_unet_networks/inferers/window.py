"""Size of the sliding window at each level."""

from __future__ import annotations

from collections.abc import Sequence

from ..levels import ResolutionLevels

__all__ = ["window_size"]


def window_size(levels: ResolutionLevels, roi_size: Sequence[int], level: int) -> tuple[int, ...]:
    """Size of the window at a level, in voxels of the level: it covers as many mm as ``roi_size`` does at level 0.

    The size in mm matters because predictions on the level 0 grid need memory for every fine voxel. A window of 128³
    voxels at level 3 would be predicted on 512 times as many voxels of level 0, which needs more than 200 GB.

    Args:
        levels: the resolution levels of the task.
        roi_size: voxels of level 0, a size that level 0 can process.
        level: level at which the window enters.
    """
    return levels.padded_size([max(1, n // s) for n, s in zip(roi_size, levels.scale(level))], level)
