"""Test-time augmentation: the mean prediction of a scan and of copies that were flipped or shifted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from ..inferers.base import InfererWrapper, RoutingInferer, ScanNotes

__all__ = ["TestTimeInferer"]

SMALLEST = 1e-9  # of a probability, before its logarithm


class TestTimeInferer(InfererWrapper):
    """Averages the probabilities of a scan and of flipped and shifted copies; returns them as logits.

    Each copy costs as much as the scan itself. docs/any_resolution.md has what it gains.

    Args:
        inferer: inferer that predicts each copy.
        flips: axes of each flipped copy, such as ``[[0], [0, 1]]``.
        shifts: voxels of the level's grid by which each shifted copy is moved along each axis, such as ``[[1, 1, 1]]``.
    """

    __test__ = False  # no class of tests for pytest

    def __init__(
        self, inferer: RoutingInferer, flips: Sequence[Sequence[int]] = (), shifts: Sequence[Sequence[int]] = ()
    ) -> None:
        super().__init__(inferer)
        self.flips = [[axis + 2 for axis in axes] for axes in flips]  # after batch and channel
        self.shifts = [list(shift) for shift in shifts]

    def predict(
        self, x: torch.Tensor, level: int, output: str, network: Callable[..., Any], notes: ScanNotes
    ) -> dict[str, torch.Tensor]:
        """As :py:meth:`rare_unet_networks.inferers.base.RoutingInferer.predict`."""
        predictions = self.inferer.predict(x, level, output, network, notes)
        means = {key: logits.float().softmax(dim=1) for key, logits in predictions.items()}
        for axes in self.flips:
            for key, logits in self.inferer.predict(x.flip(axes), level, output, network, notes).items():
                means[key] = means[key] + logits.float().flip(axes).softmax(dim=1)
        for shift in self.shifts:
            # Grids are padded on both sides alike: two voxels more at the start move the scan by one.
            moved = F.pad(x, [n for step in reversed(shift) for n in (2 * step, 0)], value=self.cval)
            for key, logits in self.inferer.predict(moved, level, output, network, notes).items():
                scale = self.levels.scale(level if key == "pred_fine" else 0)
                inside = (..., *(slice(2 * step * s, None) for step, s in zip(shift, scale)))
                means[key] = means[key] + logits.float()[inside].softmax(dim=1)
        copies = 1 + len(self.flips) + len(self.shifts)
        return {key: (total / copies).clamp_min(SMALLEST).log() for key, total in means.items()}
