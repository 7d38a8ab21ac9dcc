"""Compares a runtime with eager PyTorch on the first real image of each level, and keeps the result."""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path

import torch
from torch import nn

from ..networks.outputs import Prediction
from ..utils.files import read_json, write_text

__all__ = ["VerifiedPrograms"]

logger = logging.getLogger(__name__)
TOLERANCE = 0.05  # largest accepted difference between logits of the runtime and of eager
FILE = "verified.json"  # largest difference of each level


class VerifiedPrograms(nn.Module):
    """A runtime's programs, each of which is used only if it gave the logits of eager for a real image.

    An export is checked with small images of noise. With a large image the sums are longer, and logits can differ more.
    So the first image of each level is computed by both. The difference is kept beside the export; where it is above
    0.05, the network computes that level from then on.

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
        self.differences: dict[str, float] = {}
        with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):  # not there yet, or damaged
            self.differences = {str(level): float(value) for level, value in read_json(self.file).items()}

    @property
    def runtime(self) -> str:
        """The programs' runtime, for the records."""
        return self.programs.runtime

    @property
    def refused(self) -> list[int]:
        """Levels that eager computes."""
        return sorted(int(level) for level, value in self.differences.items() if not value <= TOLERANCE)

    @torch.no_grad()
    def forward(self, x: torch.Tensor, level: int = 0, output: str = "scan") -> torch.Tensor | Prediction:
        """As the network."""
        if str(level) not in self.differences:
            expected = self.network(x, level=level, output=output)
            self._note(level, _difference(self.programs(x, level=level, output=output), expected))
            return expected
        chosen = self.network if level in self.refused else self.programs
        return chosen(x, level=level, output=output)

    def _note(self, level: int, difference: float) -> None:
        self.differences[str(level)] = difference
        if not difference <= TOLERANCE:
            logger.warning(
                f"runtime auto: eager at level {level}, because logits of {self.runtime} differ by {difference:.2g} "
                f"from those of eager, expected at most {TOLERANCE:g}"
            )
        with contextlib.suppress(OSError):
            write_text(self.file, json.dumps(self.differences) + "\n")


def _difference(found: torch.Tensor | Prediction, expected: torch.Tensor | Prediction) -> float:
    """The largest difference of a logit; NaN if one is NaN."""
    pairs = [(found, expected)] if isinstance(expected, torch.Tensor) else list(zip(found, expected))
    return float(torch.stack([(a - b).abs().max() for a, b in pairs]).max())
