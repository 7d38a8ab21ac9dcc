"""Prepares the batch of a training step: a pyramid of resolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.engines import PrepareBatch

from ..utils.distributed import all_gather
from ..utils.resampling import as_plain_tensor

__all__ = ["PreparePyramidBatch"]


class PreparePyramidBatch(PrepareBatch):
    """Collects ``image_0`` … and ``label_0`` … of :py:class:`MultiResolutionPyramidd` in two lists for a training step.

    Level 0 takes most of the time of a step. If some steps leave out the finest levels, the coarse levels are trained
    more in the same time. The deep stages of the decoder are shared, so every level trains them.

    Members with a coarse label have no level 0; then a level's tensors have fewer members than those of coarser ones,
    see :py:func:`rare_unet_networks.data.collate_patches`. The ranks of a distributed training must run the same
    levels, so they leave out those that are not in the batches of all of them.

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
            a tuple of the images, the labels, positional arguments (none) and keyword arguments of the network: the
            active ``levels``, and ``num_fine`` if some members have no label of level 0. Images and labels are plain
            tensors, one per active level, because a training step needs no metadata. If level 0 is not active, its
            label comes last, as far as a member has one.
        """

        def gather(name: str, levels: Sequence[int]) -> list[torch.Tensor]:
            tensors = []
            for level in levels:
                tensor = as_plain_tensor(batchdata[f"{name}_{level}"])
                tensors.append(tensor.to(device, non_blocking=non_blocking, **kwargs))
            return tensors

        start = torch.multinomial(self.start_level_probs, 1, generator=self.generator)
        present, has_fine_label = self._common(batchdata)
        active = [level for level in present if level in self.levels[int(start) :]] or present
        labelled = active if 0 in active or not has_fine_label else [*active, 0]
        options: dict[str, Any] = {"levels": active}
        num_fine = len(batchdata["label_0"]) if has_fine_label else 0
        if any(len(batchdata[f"image_{level}"]) > num_fine for level in active):
            options["num_fine"] = num_fine
        return gather("image", active), gather("label", labelled), (), options

    def _common(self, batchdata: dict[str, torch.Tensor]) -> tuple[list[int], bool]:
        """Returns the levels that the batch has, on every rank, and whether every rank has a label of level 0.

        A batch of scans of one acquisition has the level that it enters alone; one of coarse labels has no level 0.

        Raises:
            ValueError: if the batch has none of the levels, or the ranks have none in common.
        """
        own = [level for level in self.levels if f"image_{level}" in batchdata]
        gathered = all_gather((own, "label_0" in batchdata))
        if not own:  # said only now, because the other ranks wait for this one
            given = sorted(key for key in batchdata if key.startswith("image_"))
            raise ValueError(f"a batch must have an image of one of the trained levels {self.levels}, got {given}.")
        present = [level for level in own if all(level in levels for levels, _ in gathered)]
        if not present:
            levels_by_rank = [levels for levels, _ in gathered]
            raise ValueError(f"the batches of all processes must have a level in common, got {levels_by_rank}.")
        return present, all(has_label for _, has_label in gathered)
