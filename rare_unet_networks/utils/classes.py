"""The most likely class of each voxel."""

from __future__ import annotations

import torch

__all__ = ["most_likely"]


def most_likely(x: torch.Tensor, keepdim: bool = False) -> torch.Tensor:
    """Index of the largest value along the first axis, of equal ones the lowest.

    It is ``torch.argmax(x, dim=0)``, which on a CPU takes seven times as long if the axis is not the last one.

    Args:
        x: shape (classes, *spatial_size).
        keepdim: whether the result has a first axis of size 1.
    """
    return x.max(dim=0, keepdim=keepdim).indices
