"""Inference at several levels: the mean prediction of a scan's own level and of coarser ones.

Not in the paper. The gateways are trained to segment coarse scans, and a fine scan can be averaged to a coarse one. So
its own level and all coarser levels can predict it. For the gain see "Several levels together" in
docs/experiment/brain_tumor.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ..utils.coarsening import coarsen
from ..utils.geometry import scaled_box
from ..utils.resampling import as_plain_tensor, from_padded
from ..utils.trust import TrustNotes, soft_dice
from .base import InfererWrapper, RoutingInferer, ScanNotes, logger
from .routing import paste_into_background

__all__ = ["MultiLevelInferer"]


class MultiLevelInferer(InfererWrapper):
    """Averages the probabilities of a scan's level and of coarser levels.

    A scan of level d is averaged over blocks of 2, 4, … voxels, its intensities are scaled again, and it is sent
    through the gateways of levels d + 1, d + 2, …. Their probabilities are interpolated linearly to the grids of the
    inferer's ``output``. Voxels of 0 in a channel are its background. All these levels must be trained.

    Args:
        inferer: inferer that predicts at each level.
        extra_levels: number of coarser levels that predict too, at most as many as the network has. With 0 the
            predictions of ``inferer`` do not change.
        scaling: dictionary transform that scaled the intensities of the scan; it is applied again to each coarse scan,
            under the key ``"image"``, shape (C, *spatial_size), because a mean of scaled intensities has another scale.
            Needed for ``extra_levels`` above 0.
        agreement: whether to note, in the metadata of the predictions as ``trust``
            (:py:class:`rare_unet_networks.utils.trust.TrustNotes`), how well the scan's own level and the next coarser
            one agree on the scan's grid. It costs nothing. At the last level there is none.

    Raises:
        ValueError: if ``extra_levels`` is negative, or above 0 without ``scaling`` or with a ``cval`` other than 0.
    """

    def __init__(
        self,
        inferer: RoutingInferer,
        extra_levels: int = 0,
        scaling: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]] | None = None,
        agreement: bool = False,
    ) -> None:
        super().__init__(inferer)
        if extra_levels < 0:
            raise ValueError(f"extra_levels must be a number of levels, 0 or more, got {extra_levels}.")
        if extra_levels and (scaling is None or self.cval != 0):
            raise ValueError(f"extra_levels needs scaling and cval 0, got {scaling} and {self.cval:g}.")
        self.extra_levels = extra_levels
        self.scaling = scaling
        self.agreement = agreement

    def predict(
        self, x: torch.Tensor, level: int, output: str, network: Callable[..., Any], notes: ScanNotes
    ) -> dict[str, torch.Tensor]:
        """As :py:meth:`rare_unet_networks.inferers.base.RoutingInferer.predict`."""
        predictions = self.inferer.predict(x, level, output, network, notes)
        last = min(level + self.extra_levels, self.levels.num_levels - 1)
        if last == level:
            return predictions
        logger.debug(f"predicted at levels {level} to {last}")
        coarser = []  # (probabilities, size that their blocks cover on the grid of x) of each coarser level
        for coarse_level in range(level + 1, last + 1):
            pairs = zip(self.levels.scale(coarse_level), self.levels.scale(level))
            factors = [coarser_scale // current for coarser_scale, current in pairs]
            coarse = self._coarse(x, factors)
            logits = self.inferer.predict(coarse, coarse_level, "scan", network, notes)["pred"]
            padded_size = [n * f for n, f in zip(coarse.shape[2:], factors)]
            coarser.append((logits.float().softmax(dim=1), padded_size))
        if self.agreement and level == notes.route.level:
            self._note_agreement(predictions, coarser[0], level, notes)
        box = self.box(x)
        if level == 0:  # the two grids are the same
            scale = self.levels.scale(0)
            return dict.fromkeys(predictions, self._mean(next(iter(predictions.values())), coarser, box, scale))
        means = {}
        for key, logits in predictions.items():
            scale = self.levels.scale(level) if key == "pred_fine" else self.levels.scale(0)
            means[key] = self._mean(logits, coarser, box, scale)
        return means

    def _note_agreement(
        self,
        predictions: Mapping[str, torch.Tensor],
        coarser: tuple[torch.Tensor, Sequence[int]],
        level: int,
        notes: ScanNotes,
    ) -> None:
        """Notes the soft Dice of the own prediction, if possible on the level's grid, and the next coarser one."""
        key = "pred" if "pred" in predictions else "pred_fine"
        scale = self.levels.scale(0 if key == "pred" else level)
        logits = predictions[key]
        second = from_padded(*coarser, [n // s for n, s in zip(logits.shape[2:], scale)], scale)
        pairs = zip(logits.float().softmax(dim=1), second)
        notes.trust = [TrustNotes({"": {"agreement": soft_dice(own, other)}}) for own, other in pairs]

    @staticmethod
    def _mean(
        logits: torch.Tensor,
        coarser: Sequence[tuple[torch.Tensor, Sequence[int]]],
        box: Sequence[slice],
        scale: Sequence[int],
    ) -> torch.Tensor:
        """Logits of the mean probabilities; outside the box they are those of certain background.

        Args:
            logits: logits of the scan's own level, on its grid or on a grid finer by ``scale``.
            coarser: of each coarser level, the probabilities and the size that its blocks cover on the level's grid.
            box: part of the level's grid that was computed.
            scale: factor per axis between the level's grid and that of ``logits``.
        """
        size = [n // s for n, s in zip(logits.shape[2:], scale)]
        total = logits.float().softmax(dim=1)
        for probabilities, padded_size in coarser:
            total += from_padded(probabilities, padded_size, size, scale)
        inside = scaled_box(box, scale)
        mean = total[(..., *inside)].div(1 + len(coarser)).clamp(min=1e-9).log()
        return paste_into_background(mean, inside, logits.shape[2:])

    def _coarse(self, x: torch.Tensor, factors: Sequence[int]) -> torch.Tensor:
        """Means of blocks, whose intensities are scaled again."""
        # Before the mean, the intensities of the foreground are raised above the background's 0.
        inside = x != 0
        lowest = torch.where(inside, x, torch.inf).flatten(2).amin(dim=2).reshape(*x.shape[:2], *[1] * (x.ndim - 2))
        raised = torch.where(inside, x - lowest, 0)
        coarse = [coarsen(member, factors) for member in raised]
        return torch.stack([as_plain_tensor(self.scaling({"image": member})["image"]) for member in coarse])
