"""Signs that a prediction may be wrong, computed without a label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

__all__ = ["add_warning", "doubt", "slices_through", "touches_border", "warnings_of"]

WARNINGS = "warnings"  # entry of a scan's metadata with one warning per line
SKULL = "skull"  # likewise, what was done with the skull


def doubt(probabilities: torch.Tensor) -> torch.Tensor:
    """Uncertainty of a prediction: its entropy per expected foreground voxel.

    It is small on scans like those of the training. It is large on scans with wrong axes in the header, another
    contrast or rotated heads, and on noise.

    Args:
        probabilities: shape (B, classes, *spatial_size), background first.

    Returns:
        nats per voxel, shape (B,); large if no foreground is expected.
    """
    p = probabilities.float()
    entropy = -(p * p.clamp(min=1e-8).log()).flatten(1).sum(dim=1)
    return entropy / (1 - p[:, 0]).flatten(1).sum(dim=1).clamp(min=1e-8)


def touches_border(labels: torch.Tensor) -> bool:
    """Whether an outermost layer of voxels has foreground, so that the structure may continue outside of the scan.

    Args:
        labels: class indices, shape (*spatial_size).
    """
    foreground = labels > 0
    return any(bool(foreground.select(axis, i).any()) for axis in range(foreground.ndim) for i in (0, -1))


def slices_through(labels: torch.Tensor, spacing: Sequence[float], scan_spacing: Sequence[float]) -> list[float]:
    """Number of slices of a scan that the foreground extends over, by axis.

    Args:
        labels: class indices, shape (*spatial_size), not all of them 0.
        spacing: voxel size of ``labels``, mm.
        scan_spacing: voxel size of the scan, in the same order of axes, mm.
    """
    voxels = (labels > 0).nonzero()
    extent = (voxels.amax(dim=0) - voxels.amin(dim=0) + 1).tolist()
    return [n * s / t for n, s, t in zip(extent, spacing, scan_spacing)]


def add_warning(meta: dict[str, Any], text: str) -> None:
    """Adds a warning to a scan's metadata, once. As text, because MONAI's collation would mix lists of a batch."""
    if text not in warnings_of(meta):
        meta[WARNINGS] = "\n".join([*warnings_of(meta), text])


def warnings_of(meta: dict[str, Any]) -> list[str]:
    """Warnings of a scan's metadata."""
    return str(meta.get(WARNINGS, "")).splitlines()
