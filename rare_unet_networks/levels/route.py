"""The decision about one scan: its level, and the sizes on the way to its grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..utils.geometry import format_size

__all__ = ["Route"]


@dataclass(frozen=True)
class Route(int):
    """Level of one input (or one batch), and the sizes on the way to its grid.

    An inferer writes it into the metadata of its predictions, as ``prediction.meta["route"]``. It is a number, the
    level, because MONAI's ``decollate_batch`` gives numbers in metadata to every member of a batch as they are. It
    refuses unknown types.

    Attributes:
        level: level at which the input enters, 0 = full resolution.
        scale: ratio of the level's voxel size to that of level 0, one factor per axis.
        spacing: voxel size of the input in mm; None if the input was placed by its size.
        spatial_size: voxels of the input.
        resampled_size: voxels after resampling to the level; equal to ``spatial_size`` if nothing is resampled.
        padded_size: voxels after padding ``resampled_size`` to a size that the level can process.
        reason: why this level was chosen, in words.
    """

    level: int
    scale: tuple[int, ...]
    spacing: tuple[float, ...] | None
    spatial_size: tuple[int, ...]
    resampled_size: tuple[int, ...]
    padded_size: tuple[int, ...]
    reason: str

    def __new__(cls, level: int, *_: Any, **__: Any) -> Route:
        return super().__new__(cls, level)

    @property
    def fine_size(self) -> tuple[int, ...]:
        """Voxels of the level 0 grid that covers the extent of the input."""
        return tuple(n * s for n, s in zip(self.resampled_size, self.scale))

    def __str__(self) -> str:
        fractions = [f"1/{s}" if s > 1 else "1" for s in self.scale]
        scale = fractions[0] if len(set(fractions)) == 1 else "×".join(fractions)
        steps = [f"level {self.level} (scale {scale}): {self.reason}"]
        if self.resampled_size != self.spatial_size:
            steps.append(
                f"resampled from {format_size(self.spatial_size)} to {format_size(self.resampled_size)} voxels"
            )
        if self.padded_size != self.resampled_size:
            steps.append(f"padded from {format_size(self.resampled_size)} to {format_size(self.padded_size)} voxels")
        return ", ".join(steps)
