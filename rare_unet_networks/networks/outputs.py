"""Types of a network's outputs.

Without ``from __future__ import annotations``: with it, TorchScript cannot read the annotations of a ``NamedTuple``.
"""

from typing import NamedTuple

import torch

__all__ = ["Prediction", "PyramidOutput"]


class Prediction(NamedTuple):
    """Logits of one image on both grids, shape (B, classes, *spatial_size); at level 0 both are the same tensor."""

    scan: torch.Tensor  # on the grid of the image
    fine: torch.Tensor  # on the grid of level 0


class PyramidOutput(NamedTuple):
    """Output of a training step for a pyramid of images."""

    logits: list[torch.Tensor]  # of each active level, on the grid of the level
    # (gateway feature, encoder feature) of each active level above 0; empty if level 0 is not active
    features: list[tuple[torch.Tensor, torch.Tensor]]
    fine: list[torch.Tensor]  # of each active level above 0, on the grid of level 0; empty without ``fine_convs``
