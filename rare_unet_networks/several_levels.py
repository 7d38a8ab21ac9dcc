"""Inference that looks at a scan from further away as well: a network with gateways is several in one.

Not in the paper. The gateways were trained to segment coarse scans, and a fine scan can be made coarse: each level from
its own down can answer. Where a structure has to be told from its surroundings, as a tumour in a brain, the mean of the
answers is better than each (docs/experiment_brain_tumor.md, "Several levels together"). A level costs a fraction of the
one above it, so that all together cost less than one and a half times as much as the first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from .geometry import LINEAR, symmetric_core, symmetric_pad
from .inferers import ResolutionRoutingInferer, logger
from .resampling import mean_of_blocks

__all__ = ["SeveralLevelsInferer"]


class SeveralLevelsInferer(ResolutionRoutingInferer):
    """:py:class:`ResolutionRoutingInferer` whose answer is the mean of several levels' probabilities.

    The scan that enters level d is averaged over blocks of 2, 4, … voxels, scaled anew, and sent through the gateways
    of levels d + 1, d + 2, …; their probabilities come back linearly to the grids that were asked for. Voxels that are
    ``cval`` in a channel are its background.

    Args:
        args: as :py:class:`ResolutionRoutingInferer`.
        coarser: how many coarser levels answer as well, as far as there are any; 0 is the plain inferer.
        scaling: dictionary transform of the intensities of ``"image"``, shape (C, *spatial_size), the one that made the
            scan what it is: an average of scaled intensities is not on that scale.
        kwargs: as :py:class:`ResolutionRoutingInferer`.

    Raises:
        ValueError: on a negative ``coarser``.
    """

    def __init__(
        self,
        *args: Any,
        coarser: int = 0,
        scaling: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if coarser < 0:
            raise ValueError(f"coarser must be a number of levels, 0 or more, got {coarser}.")
        self.coarser = coarser
        self.scaling = scaling

    def _answers(
        self, x: torch.Tensor, level: int, output: str, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> dict[str, torch.Tensor]:
        found = super()._answers(x, level, output, network, *args, **kwargs)
        last = min(level + self.coarser, self.levels.num_levels - 1)
        if last == level:
            return found
        logger.info(f"seen at levels {level} to {last}")
        total = {key: logits.float().softmax(dim=1) for key, logits in found.items()}
        for coarse_level in range(level + 1, last + 1):
            block = 2 ** (coarse_level - level)
            fitting = [-(-n // block) * block for n in x.shape[2:]]
            coarse = self._coarse(x, fitting, block)
            logits = super()._answers(coarse, coarse_level, "native", network, *args, **kwargs)["pred"]
            for key, p in total.items():
                scale = 2**level if key == "pred_full" else 1
                fine = [n * scale for n in fitting]
                there = F.interpolate(logits.float().softmax(dim=1), fine, mode=LINEAR[len(fine)])
                p += there[(..., *symmetric_core(x.shape[2:], fitting, scale))]
        return {key: p.div(last - level + 1).clamp(min=1e-9).log() for key, p in total.items()}

    def _coarse(self, x: torch.Tensor, fitting: list[int], block: int) -> torch.Tensor:
        """Mean of each block, as of a scan whose background is below everything else, on the scan's scale again."""
        inside = x != self.cval
        lowest = torch.where(inside, x, torch.inf).flatten(2).amin(dim=2).reshape(*x.shape[:2], *[1] * (x.ndim - 2))
        raised = torch.where(inside, x - lowest, 0)
        coarse = mean_of_blocks(symmetric_pad(raised, fitting, 0.0), [n // block for n in fitting])
        if self.scaling is None:
            return coarse
        return torch.stack([torch.as_tensor(self.scaling({"image": member})["image"]) for member in coarse])
