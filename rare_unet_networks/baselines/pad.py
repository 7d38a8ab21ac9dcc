"""The paper's baseline *Pad*: a plain U-Net segments a coarse scan without interpolation.

The baseline *Up* needs no class: it is ``ResolutionRoutingInferer`` with a single level.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer
from monai.transforms import SpatialPad

from ..inferers.base import note_route
from ..levels import ResolutionLevels
from ..utils.geometry import symmetric_core
from ..utils.resampling import copy_meta_like

__all__ = ["PadInferer"]


class PadInferer(Inferer):
    """Pads a coarse scan with zeros to full size and segments it with a plain U-Net (the paper's *Pad*).

    Args:
        levels: a single level with a ``spatial_size``, the full size. A larger scan is padded only to fit the network.

    Raises:
        ValueError: If ``levels`` has no ``spatial_size``.
    """

    def __init__(self, levels: ResolutionLevels) -> None:
        super().__init__()
        if levels.spatial_size is None:
            raise ValueError("levels must have a spatial_size to pad to, got none.")
        self.levels = levels

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """
        Args:
            inputs: shape (B, C, *spatial_size).
            network: called as ``network(x, *args, **kwargs)``, must keep the grid of ``x``.
            args: further positional arguments of the network.
            kwargs: further keyword arguments of the network.

        Returns:
            logits, shape (B, classes, *spatial_size), on the inputs' grid.
        """
        size = tuple(inputs.shape[2:])
        full = [max(n, m) for n, m in zip(size, self.levels.spatial_size)]
        pad = SpatialPad(self.levels.padded_size(full, level=0), mode="constant", value=0)
        x = torch.stack([pad(image).as_tensor() for image in inputs])
        logits = network(x, *args, **kwargs)[(..., *symmetric_core(size, x.shape[2:]))]
        return note_route(copy_meta_like(logits, inputs), self.levels.route(inputs))
