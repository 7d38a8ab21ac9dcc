"""Sends every scan to one level, to compare the levels that a scan could enter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..levels import ResolutionLevels

__all__ = ["FixedLevel"]


class FixedLevel(ResolutionLevels):
    """Resolution levels at which every scan with a voxel size enters one and the same level.

    Args:
        level: the level.
        kwargs: as :py:class:`rare_unet_networks.levels.ResolutionLevels`.

    Raises:
        ValueError: if there is no such level.
    """

    def __init__(self, level: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.level = self._checked_level(int(level))

    def level_of_spacing(self, spacing: Sequence[float]) -> int:
        """Returns the fixed level, whatever the spacing."""
        self._checked_spacing(spacing)
        return self.level
