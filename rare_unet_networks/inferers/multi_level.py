"""Inference that looks at a scan from further away as well: a network with gateways is several in one.

Not in the paper. The gateways were trained to segment coarse scans, and a fine scan can be made coarse: each level from
its own down can answer. What the mean of their answers brings, and to which cases: "Several levels together" in
docs/experiment/brain_tumor.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from ..utils.geometry import LINEAR, symmetric_core, symmetric_pad
from ..utils.resampling import area_resize, as_plain_tensor
from .routing import ResolutionRoutingInferer, logger, paste_into_background

__all__ = ["MultiLevelInferer"]


class MultiLevelInferer(ResolutionRoutingInferer):
    """:py:class:`ResolutionRoutingInferer` whose answer is the mean of several levels' probabilities.

    The scan that enters level d is averaged over blocks of 2, 4, … voxels, scaled anew, and sent through the gateways
    of levels d + 1, d + 2, …; their probabilities come back linearly to the grids that were asked for. Voxels of 0 in a
    channel are its background. Every level needs to have been trained.

    Args:
        args: as :py:class:`ResolutionRoutingInferer`.
        coarser: how many coarser levels answer as well, as far as there are any; 0 is the plain inferer.
        scaling: dictionary transform of the intensities of ``"image"``, shape (C, *spatial_size), the one that made the
            scan what it is: an average of scaled intensities is not on that scale. Needed for ``coarser`` above 0.
        kwargs: as :py:class:`ResolutionRoutingInferer`.

    Raises:
        ValueError: on a negative ``coarser``, or one above 0 without ``scaling`` or with another ``cval`` than 0.
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
        if coarser and (scaling is None or self.cval != 0):
            raise ValueError(f"coarser needs scaling and cval 0, got {scaling} and {self.cval:g}.")
        self.coarser = coarser
        self.scaling = scaling

    def _answers(
        self, x: torch.Tensor, box: Sequence[slice], level: int, output: str, network: Callable[..., Any]
    ) -> dict[str, torch.Tensor]:
        found = super()._answers(x, box, level, output, network)
        last = min(level + self.coarser, self.levels.num_levels - 1)
        if last == level:
            return found
        logger.info(f"seen at levels {level} to {last}")
        seen = [self._seen_from(x, level, d, network) for d in range(level + 1, last + 1)]
        size = x.shape[2:]

        def mean(logits: torch.Tensor, scale: int) -> torch.Tensor:
            """Logits of the mean, on a grid ``scale`` times as fine as that of ``x``; background outside the box."""
            total = logits.float().softmax(dim=1)
            for p, fitting in seen:
                fine = F.interpolate(p, [n * scale for n in fitting], mode=LINEAR[len(fitting)])
                total += fine[(..., *symmetric_core(size, fitting, scale))]
            inside = [slice(s.start * scale, s.stop * scale) for s in box]
            answer = total[(..., *inside)].div(1 + len(seen)).clamp(min=1e-9).log()
            return paste_into_background(answer, inside, [n * scale for n in size])

        if level == 0:  # both grids are one
            return dict.fromkeys(found, mean(next(iter(found.values())), 1))
        return {key: mean(logits, 2**level if key == "pred_fine" else 1) for key, logits in found.items()}

    def _seen_from(
        self, x: torch.Tensor, level: int, coarse_level: int, network: Callable[..., Any]
    ) -> tuple[torch.Tensor, list[int]]:
        """A coarser level's probabilities on its own grid, and the size that ``x`` was padded to for it."""
        block = 2 ** (coarse_level - level)
        fitting = [-(-n // block) * block for n in x.shape[2:]]
        coarse = self._coarse(x, fitting, block)
        logits = super()._answers(coarse, self._box(coarse), coarse_level, "native", network)["pred"]
        return logits.float().softmax(dim=1), fitting

    def _coarse(self, x: torch.Tensor, fitting: list[int], block: int) -> torch.Tensor:
        """Mean of each block, as of a scan whose background is below everything else, on the scan's scale again."""
        inside = x != 0
        lowest = torch.where(inside, x, torch.inf).flatten(2).amin(dim=2).reshape(*x.shape[:2], *[1] * (x.ndim - 2))
        raised = torch.where(inside, x - lowest, 0)
        coarse = area_resize(symmetric_pad(raised, fitting, 0.0), [n // block for n in fitting])
        return torch.stack([as_plain_tensor(self.scaling({"image": member})["image"]) for member in coarse])
