"""Batches of a training step: a pyramid of resolutions."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from monai.engines import PrepareBatch

from ..utils.resampling import as_plain_tensor

__all__ = ["PreparePyramidBatch"]

logger = logging.getLogger(__name__)


class PreparePyramidBatch(PrepareBatch):
    """Gathers ``image_0`` … and ``label_0`` … of :py:class:`MultiResolutionPyramidd` into the two lists a step takes.

    A step of all levels costs most of its time at level 0, whose decoder's deep stages the coarse levels train as well:
    leaving the finest levels out of some steps trains the coarse ones more for the same time.

    Args:
        levels: levels of the pyramid, ascending.
        start_level_probs: probabilities that a step runs all of them, leaves out the first, the first two, …; all by
            default.
        seed: of that draw; the processes of a distributed training must share it, so that they run the same levels.

    Raises:
        ValueError: when there are more probabilities than levels, or they do not add up to 1.
    """

    def __init__(self, levels: Sequence[int], start_level_probs: Sequence[float] = (1.0,), seed: int = 0) -> None:
        if (
            len(start_level_probs) > len(levels)
            or any(p < 0 for p in start_level_probs)
            or abs(sum(start_level_probs) - 1) > 1e-6
        ):
            raise ValueError(
                f"start_level_probs must be at most {len(levels)} probabilities that add up to 1, "
                f"got {tuple(start_level_probs)}."
            )
        self.levels = list(levels)
        self.start_level_probs = torch.tensor(start_level_probs, dtype=torch.float64)
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(
        self,
        batchdata: dict[str, torch.Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[list[torch.Tensor], list[torch.Tensor], tuple, dict[str, Any]]:
        """
        Returns:
            images and labels, one of each per level, as plain tensors: a training step needs no metadata; where level 0
            is not active, its label comes last. And what else the network is called with: its active ``levels``.
        """

        def gather(name: str, levels: Sequence[int]) -> list[torch.Tensor]:
            tensors = [as_plain_tensor(batchdata[f"{name}_{level}"]) for level in levels]
            return [t.to(device, non_blocking=non_blocking, **kwargs) for t in tensors]

        start = torch.multinomial(self.start_level_probs, 1, generator=self.generator)
        # A batch of scans of one acquisition has the level that it enters alone.
        present = [level for level in self.levels if f"image_{level}" in batchdata]
        active = [level for level in present if level in self.levels[int(start) :]] or present
        labelled = active if 0 in active else [*active, 0]
        return gather("image", active), gather("label", labelled), (), {"levels": active}
