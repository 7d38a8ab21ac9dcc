"""Prepares the batch of a training step: a pyramid of resolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.engines import PrepareBatch

from ..utils.resampling import as_plain_tensor

__all__ = ["PreparePyramidBatch"]


class PreparePyramidBatch(PrepareBatch):
    """Collects ``image_0`` … and ``label_0`` … of :py:class:`MultiResolutionPyramidd` in two lists for a training step.

    Level 0 takes most of the time of a step. If some steps leave out the finest levels, the coarse levels are trained
    more in the same time. The deep stages of the decoder are shared, so every level trains them.

    Args:
        levels: levels of the pyramid, ascending.
        start_level_probs: probabilities that a step runs all levels, leaves out the first, the first two, …; by default
            every step runs all levels.
        seed: seed of that draw; all ranks of a distributed training must use the same, to run the same levels.

    Raises:
        ValueError: if there are more probabilities than levels, or they do not add up to 1.
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
        """Draws the active levels of a step and collects their images and labels.

        Returns:
            a tuple of the images, the labels, positional arguments (none) and keyword arguments (the active ``levels``)
            of the network. Images and labels are plain tensors, one per active level, because a training step needs no
            metadata. If level 0 is not active, its label comes last.
        """

        def gather(name: str, levels: Sequence[int]) -> list[torch.Tensor]:
            tensors = []
            for level in levels:
                tensor = as_plain_tensor(batchdata[f"{name}_{level}"])
                tensors.append(tensor.to(device, non_blocking=non_blocking, **kwargs))
            return tensors

        start = torch.multinomial(self.start_level_probs, 1, generator=self.generator)
        # A batch of scans of one acquisition has the level that it enters alone.
        present = [level for level in self.levels if f"image_{level}" in batchdata]
        active = [level for level in present if level in self.levels[int(start) :]] or present
        labelled = active if 0 in active else [*active, 0]
        return gather("image", active), gather("label", labelled), (), {"levels": active}
