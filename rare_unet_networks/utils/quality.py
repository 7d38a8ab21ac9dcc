"""Signs that a prediction may be wrong, computed without knowing the right one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from .geometry import format_size

if TYPE_CHECKING:
    from ..levels import ResolutionLevels

__all__ = ["add_warning", "distance_warning", "doubt", "slices_through", "touches_border", "warnings_of"]

WARNINGS = "warnings"  # entry of a scan's metadata: a warning per line


def doubt(probabilities: torch.Tensor) -> torch.Tensor:
    """Entropy of a prediction per expected voxel of foreground.

    Small where a network sees what it was trained on; large on scans whose header names other axes than their content
    has, on another contrast, on rotated heads and on noise.

    Args:
        probabilities: shape (B, classes, *spatial_size), background first.

    Returns:
        nats per voxel, shape (B,); large where no foreground is expected.
    """
    p = probabilities.float()
    entropy = -(p * p.clamp(min=1e-8).log()).flatten(1).sum(dim=1)
    return entropy / (1 - p[:, 0]).flatten(1).sum(dim=1).clamp(min=1e-8)


def touches_border(labels: torch.Tensor) -> bool:
    """Whether there is foreground in an outermost layer of voxels: the structure may go on outside of the scan.

    Args:
        labels: class indices, shape (*spatial_size).
    """
    foreground = labels > 0
    return any(bool(foreground.select(axis, i).any()) for axis in range(foreground.ndim) for i in (0, -1))


def slices_through(labels: torch.Tensor, spacing: Sequence[float], scan_spacing: Sequence[float]) -> list[float]:
    """How many slices of a scan the foreground extends over, by axis.

    Args:
        labels: class indices, shape (*spatial_size), some above 0.
        spacing: voxel size of ``labels``, mm.
        scan_spacing: that of the scan, in the same order of axes, mm.
    """
    voxels = (labels > 0).nonzero()
    extent = (voxels.amax(dim=0) - voxels.amin(dim=0) + 1).tolist()
    return [n * s / t for n, s, t in zip(extent, spacing, scan_spacing)]


def distance_warning(levels: ResolutionLevels, spacing: Sequence[float]) -> str:
    """Why a scan is coarser than a network with these levels can segment; empty where it is not.

    The coarsest axis decides. A finer scan than level 0's is averaged, which costs nothing; with one level every
    coarser scan is far from it, and meant to be upsampled.

    Args:
        levels: the resolution levels of the task.
        spacing: voxel size of the scan, mm.
    """
    if levels.num_levels == 1:
        return ""
    coarsest = levels.level_spacing(levels.num_levels - 1)
    if max(s / t for s, t in zip(spacing, coarsest)) <= 1 + levels.tolerance + 1e-6:
        return ""
    return (
        f"spacing {format_size(spacing)} mm is coarser than the coarsest level's, {format_size(coarsest)} mm: do not "
        "trust the prediction"
    )


def add_warning(meta: dict[str, Any], text: str) -> None:
    """Adds a warning to a scan's metadata, once; as text, since the lists of a batch's members would be mixed."""
    if text not in warnings_of(meta):
        meta[WARNINGS] = "\n".join([*warnings_of(meta), text])


def warnings_of(meta: dict[str, Any]) -> list[str]:
    """Warnings of a scan's metadata."""
    return str(meta.get(WARNINGS, "")).splitlines()
