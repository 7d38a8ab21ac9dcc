"""What a network with several outputs returns.

Without ``from __future__ import annotations``, as TorchScript does not read the annotations of a ``NamedTuple`` then.
"""

from typing import NamedTuple

import torch

__all__ = ["Prediction", "PyramidOutput"]


class Prediction(NamedTuple):
    """Logits for one image on both grids, shape (B, classes, *spatial_size); at level 0 they are one tensor."""

    scan: torch.Tensor  # on the grid of the image
    fine: torch.Tensor  # on that of level 0


class PyramidOutput(NamedTuple):
    """What a training step needs of a pyramid of images."""

    logits: list[torch.Tensor]  # of each active level, on its own grid
    # (gateway feature, encoder feature) of each active level above 0; none if level 0 is not active
    features: list[tuple[torch.Tensor, torch.Tensor]]
    fine: list[torch.Tensor]  # of each active level above 0, on the grid of level 0; none without ``fine_convs``
