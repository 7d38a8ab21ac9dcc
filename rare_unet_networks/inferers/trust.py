"""A second prediction beside the first: how well both agree says how far the first can be trusted.

The gateways make it cheap. A scan of level d is averaged to blocks of two voxels and enters at level d + 1, at an
eighth of the cost. On validation volumes the agreement of both follows the Dice with the label (docs/trust.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from ..utils.coarsening import coarsen_and_scale
from ..utils.resampling import from_padded
from ..utils.trust import TrustNotes, trust_features, trust_mode
from .base import InfererWrapper, RoutingInferer, ScanNotes, logger

__all__ = ["TrustInferer"]


class TrustInferer(InfererWrapper):
    """Notes how well a prediction agrees with a second one; the prediction itself does not change.

    The second prediction is that of the scan one level coarser: means of blocks of two voxels, whose intensities are
    scaled again. Its probabilities are interpolated linearly. At the coarsest level it is that of the scan shifted by
    one voxel on each axis. Both are compared on the grid of level 0, or on the scan's if ``inferer`` predicts only
    there. With ``mode="full"`` the shifted scan is a third prediction at every level; it doubles the cost.

    The measures are in the metadata of the predictions as ``trust``, a
    :py:class:`rare_unet_networks.utils.trust.TrustNotes`. It belongs inside of a
    :py:class:`rare_unet_networks.inferers.MirrorInferer`, which has chosen the side before.

    Args:
        inferer: inferer whose predictions are judged.
        mode: ``True``, ``False`` (no second prediction) or ``"full"``; as text too.
        scaling: dictionary transform that scaled the intensities of the scan, as in ``MirrorInferer``; needed unless
            ``mode`` is false.

    Raises:
        ValueError: if ``mode`` is unknown, or is not false without ``scaling``.
    """

    def __init__(
        self,
        inferer: RoutingInferer,
        mode: bool | str = True,
        scaling: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]] | None = None,
    ) -> None:
        super().__init__(inferer)
        self.mode = trust_mode(mode)
        if self.mode != "false" and scaling is None:
            raise ValueError("trust needs scaling, the transform that scaled the scan's intensities, got None.")
        self.scaling = scaling

    def predict(
        self, x: torch.Tensor, level: int, output: str, network: Callable[..., Any], notes: ScanNotes
    ) -> dict[str, torch.Tensor]:
        """As :py:meth:`rare_unet_networks.inferers.base.RoutingInferer.predict`."""
        predictions = self.inferer.predict(x, level, output, network, notes)
        if self.mode == "false" or level != notes.route.level:  # a coarser version only serves to choose the side
            return predictions
        key = "pred_fine" if "pred_fine" in predictions else "pred"
        grid = "fine" if key == "pred_fine" else "scan"
        own = predictions[key].float().softmax(dim=1)
        is_last = level == self.levels.num_levels - 1
        shifted = self._shifted(x, level, grid, network, notes) if is_last or self.mode == "full" else None
        second = shifted if is_last else self._coarser(x, level, grid, network, notes)
        notes.trust = []
        for index in range(len(own)):
            third = None if shifted is None else shifted[index]
            features = trust_features(own[index], second[index], third, notes.route, self.levels.spacing)
            notes.trust.append(TrustNotes({"": features}))
            texts = [f"{value:.2f}" for value in features["agreement"]]
            logger.info(f"{notes.name}agreement with a second prediction: Dice {', '.join(texts)}")
        return predictions

    def _coarser(
        self, x: torch.Tensor, level: int, grid: str, network: Callable[..., Any], notes: ScanNotes
    ) -> torch.Tensor:
        """Probabilities of a level coarser on the grid of those of ``x``."""
        factors = [c // f for c, f in zip(self.levels.scale(level + 1), self.levels.scale(level))]
        coarse = coarsen_and_scale(x, factors, self.scaling)
        # On its own grid, which costs half of what it costs on the grid of level 0.
        logits = next(iter(self.inferer.predict(coarse, level + 1, "scan", network, notes).values()))
        probabilities = logits.float().softmax(dim=1)
        padded_size = [n * f for n, f in zip(coarse.shape[2:], factors)]
        scale = self.levels.scale(level) if grid == "fine" else self.levels.scale(0)
        return from_padded(probabilities, padded_size, x.shape[2:], scale)

    def _shifted(
        self, x: torch.Tensor, level: int, grid: str, network: Callable[..., Any], notes: ScanNotes
    ) -> torch.Tensor:
        """Probabilities of ``x`` moved by one voxel along each axis of several voxels, moved back.

        The grid, and with it the cost, stays as it is. What the move leaves free at the start repeats the first voxels,
        and at the end of the prediction the last ones.
        """
        steps = [int(n > 1) for n in x.shape[2:]]
        moved = F.pad(x, [n for step in reversed(steps) for n in (step, 0)], mode="replicate")
        moved = moved[(..., *(slice(n) for n in x.shape[2:]))]
        logits = next(iter(self.inferer.predict(moved, level, grid, network, notes).values()))
        scale = self.levels.scale(level) if grid == "fine" else self.levels.scale(0)
        steps = [step * s for step, s in zip(steps, scale)]
        inside = logits.float().softmax(dim=1)[(..., *(slice(step, None) for step in steps))]
        return F.pad(inside, [n for step in reversed(steps) for n in (0, step)], mode="replicate")
