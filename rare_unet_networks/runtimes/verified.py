"""Compares a runtime with eager PyTorch on the first real image of each level, and keeps the result."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import nn

from ..networks.outputs import Prediction
from ..utils.files import read_json, write_text

__all__ = ["VerifiedPrograms"]

logger = logging.getLogger(__name__)
TOLERANCE = 0.05  # largest accepted difference between logits of the runtime and of eager
FILE = "verified.json"  # largest difference of each level and grid


class VerifiedPrograms(nn.Module):
    """A runtime's programs, each of which is used only if it gave the logits of eager for a real image.

    An export is checked with small images of noise. With a large image the sums are longer, and logits can differ more.
    So the first image of each level, and of each grid that it is predicted on, is computed by both. The difference is
    kept beside the export; where it is above 0.05, the network computes that level from then on.

    Args:
        programs: called like the network.
        network: the network in eager PyTorch, with the same weights.
        folder: where the differences are kept. If it cannot be written to, each process compares anew.
    """

    def __init__(self, programs: nn.Module, network: nn.Module, folder: Path) -> None:
        super().__init__()
        self.programs = programs
        self.network = network
        self.file = folder / FILE
        self.differences: dict[int, dict[str, float]] = {}  # by level and grid
        with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):  # not there yet, or damaged
            kept = read_json(self.file).items()
            self.differences = {int(n): {grid: float(d) for grid, d in of_level.items()} for n, of_level in kept}

    @property
    def runtime(self) -> str:
        """The programs' runtime, for the records."""
        return self.programs.runtime

    @property
    def refused(self) -> list[int]:
        """Levels that eager computes."""
        differences = self.differences.items()
        return sorted(level for level, of_level in differences if not _largest(of_level.values()) <= TOLERANCE)

    @torch.no_grad()
    def forward(self, x: torch.Tensor, level: int = 0, output: str = "scan") -> torch.Tensor | Prediction:
        """As the network."""
        if level in self.refused:
            return self.network(x, level=level, output=output)
        logits = self.programs(x, level=level, output=output)
        # At level 0 the two grids are the same.
        grids = ("scan",) if level == 0 else ("scan", "fine") if output == "both" else (output,)
        if set(grids) <= self.differences.get(level, {}).keys():
            return logits
        expected = self.network(x, level=level, output=output)
        pairs = [(logits, expected)] if isinstance(expected, torch.Tensor) else zip(logits, expected)
        self._note(level, {grid: float((a - b).abs().max()) for grid, (a, b) in zip(grids, pairs)})
        return expected

    def _note(self, level: int, differences: Mapping[str, float]) -> None:
        self.differences.setdefault(level, {}).update(differences)
        largest = _largest(differences.values())
        if not largest <= TOLERANCE:
            logger.warning(
                f"runtime auto: eager at level {level}, because logits of {self.runtime} differ by {largest:.2g} "
                f"from those of eager, expected at most {TOLERANCE:g}"
            )
        with contextlib.suppress(OSError):
            write_text(self.file, json.dumps(self.differences) + "\n")


def _largest(differences: Iterable[float]) -> float:
    """The largest difference; NaN if one is NaN, which Python's max may ignore."""
    return float(torch.tensor([0.0, *differences]).max())
