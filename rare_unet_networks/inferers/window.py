"""How large a window of a sliding inference may be."""

from __future__ import annotations

from collections.abc import Sequence

from ..levels import ResolutionLevels

__all__ = ["window_size"]


def window_size(levels: ResolutionLevels, roi_size: Sequence[int], level: int) -> tuple[int, ...]:
    """Largest window, in voxels of a level, that covers no more mm than ``roi_size`` does at level 0.

    As many voxels of level 3 would be predicted on 512 times as many of level 0: 128³ need more than 200 GB.

    Args:
        levels: the resolution levels of the task.
        roi_size: voxels of level 0, a size that level 0 can process.
        level: the level that the window enters.
    """
    return levels.padded_size([max(1, n // s) for n, s in zip(roi_size, levels.scale(level))], level)
