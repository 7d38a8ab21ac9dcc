"""MONAI dictionary transforms that check a prediction: whether it can be used and whether it needs a review."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from ..inferers.whole_head import HeadNotes, classes_of
from ..levels import ResolutionLevels, Route
from ..utils.geometry import spacing_of
from ..utils.labels import most_likely
from ..utils.logs import name_of
from ..utils.quality import add_warning, doubt, slices_through, touches_border, warnings_of
from ..utils.resampling import as_plain_tensor
from ..utils.trust import TrustNotes
from ..utils.trust_model import TrustModel, trust_entries

__all__ = ["CheckFinited", "ReviewPredictiond"]

logger = logging.getLogger(__name__)


class CheckFinited(MapTransform):
    """Rejects logits that are NaN or infinite; they would become a label map without foreground.

    Args:
        keys: logits, or dictionaries of them by grid.

    Raises:
        ValueError: if a value is not finite.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        for key in self.keys:
            logits = data[key]
            for grid in logits.values() if isinstance(logits, Mapping) else [logits]:
                if not torch.isfinite(as_plain_tensor(grid)).all():
                    raise ValueError("the network's output has values that are NaN or infinite: it cannot be used")
        return dict(data)


class ReviewPredictiond(MapTransform):
    """Writes into the metadata of a prediction how uncertain it is and why it should be reviewed.

    ``meta["doubt"]`` is a number, see :py:func:`rare_unet_networks.utils.quality.doubt`. ``meta["review"]`` is a list
    of reasons in words, which may be empty: the doubt is above its limit, the side is uncertain, the prediction
    touches the border of the scan, a class is empty, the structure extends over too few slices, the scan is coarser
    than any level, or there was a warning when the scan was loaded. With the notes of a
    :py:class:`rare_unet_networks.inferers.TrustInferer`,
    ``meta["trust_entries"]`` holds what a record says of them (:py:func:`rare_unet_networks.utils.trust_entries`), and
    further reasons are a low expected Dice and a volume outside the range of the training. New reasons are logged as
    warnings. In a whole head the inferer's reasons (and its names of classes) replace that of the border. Apply it to
    probabilities, before ``AsLabelMapd``.

    Args:
        keys: probabilities on the scan's grid, shape (C, *spatial_size), with the inferer's route in their metadata,
            after :py:class:`ResampleToBothGridsd` and ``Invertd``. If ``<key>_fine`` exists, on the grid of level 0,
            that one is checked.
        levels: the resolution levels of the task.
        class_names: names of the classes above background, in order.
        doubt_limit: largest doubt without a warning, one entry per level; None, for a level or for all, means no limit.
            Limits depend on the weights: :py:func:`rare_unet_networks.bundle.find_doubt_limits` computes them. For a
            scan with thick slices, the largest limit of the levels between its finest and its coarsest axis applies;
            for a scan that was placed by its size, the limit of its level.
        min_slices: smallest number of the scan's slices that a structure should extend over.
        min_side_margin: smallest difference between the doubt of the two sides, if the side was chosen by it.
        image_key: the network's input.
        trust_model: estimates the Dice of a prediction; without it only the agreement is noted.

    Raises:
        ValueError: if the number of limits is not that of the levels, or a prediction has no route.
    """

    def __init__(
        self,
        keys: KeysCollection,
        levels: ResolutionLevels,
        class_names: Sequence[str],
        doubt_limit: Sequence[float | None] | None = None,
        min_slices: float = 2.0,
        min_side_margin: float = 0.05,
        image_key: str = "image",
        trust_model: TrustModel | None = None,
    ) -> None:
        super().__init__(keys)
        if doubt_limit is not None and len(doubt_limit) != levels.num_levels:
            raise ValueError(f"doubt_limit must have {levels.num_levels} entries, one by level, got {doubt_limit}.")
        self.levels = levels
        self.class_names = list(class_names)
        self.doubt_limit = None if doubt_limit is None else list(doubt_limit)
        self.min_slices = min_slices
        self.min_side_margin = min_side_margin
        self.image_key = image_key
        self.trust_model = trust_model

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        image = d[self.image_key]
        for key in self.keys:
            finest = d.get(f"{key}_fine", d[key])
            value = float(doubt(as_plain_tensor(finest)[None]))
            meta = dict(image.meta)
            route = self._route(d[key], key)
            head = d[key].meta.get("head")
            trust = d[key].meta.get("trust")
            for reason in self._reasons(finest, d[key], route, value, head) + self._trust_reasons(trust):
                logger.warning(f"{name_of(image.meta)}: {reason}")
                add_warning(meta, reason)
            for reason in head.reasons if head is not None else ():
                add_warning(meta, reason)  # the inferer has logged it
            distance = self.levels.distance_warning(route.spacing)
            if distance:
                add_warning(meta, distance)  # the inferer has logged it
            for k in (key, f"{key}_fine"):
                if k in d:
                    d[k].meta["doubt"] = value
                    d[k].meta["review"] = warnings_of(meta)
                    if trust is not None:
                        d[k].meta["trust_entries"] = trust_entries(trust, self.class_names, self.trust_model)
        return d

    def _trust_reasons(self, trust: TrustNotes | None) -> list[str]:
        reasons = []
        if trust is not None and self.trust_model is not None:
            for side, features in trust.features.items():
                reasons += self.trust_model.reasons(features, side)
        return reasons

    @staticmethod
    def _route(prediction: torch.Tensor, key: Hashable) -> Route:
        meta = prediction.meta if isinstance(prediction, MetaTensor) else {}
        if "route" not in meta:
            raise ValueError(f"{key} must carry the inferer's route in its metadata, got none.")
        return meta["route"]

    def _reasons(
        self, finest: MetaTensor, on_scan: MetaTensor, route: Route, value: float, head: HeadNotes | None
    ) -> list[str]:
        """Reasons for a review, from the prediction on its finest grid and on the grid of the scan."""
        reasons = []
        limit = self._limit(route)
        if limit is not None and value > limit:
            reasons.append(
                f"the network doubts its prediction ({value:.2f}, the limit is {limit:.2f}): check the axes in the "
                "header, the side, the contrast and the part of the body"
            )
        margin = on_scan.meta.get("side_margin")
        if margin is not None and margin < self.min_side_margin:
            reasons.append(
                f"left and right look nearly alike (their doubt differs by {margin:.2f}): check the side, or give it "
                "with --side"
            )
        labels = most_likely(as_plain_tensor(finest))
        classes = classes_of(head, self.class_names)
        empty = [name for index, name in classes.items() if not bool((labels == index).any())]
        if empty:
            reasons.append(f"no voxel is {', '.join(empty)}")
        if len(empty) == len(classes):
            return reasons
        if head is None and touches_border(labels):
            reasons.append("the prediction touches the border of the scan: the structure may be cut")
        axes = labels.ndim
        slices = slices_through(labels, spacing_of(finest.affine, axes), spacing_of(on_scan.affine, axes))
        if min(slices) < self.min_slices:
            reasons.append(f"the prediction extends over {min(slices):.1f} slices only, on an axis of the scan")
        return reasons

    def _limit(self, route: Route) -> float | None:
        """Largest limit of the levels between the finest and the coarsest axis; None if one of them has no limit.

        For a scan that was placed by its size this is the limit of the level of its route.
        """
        if self.doubt_limit is None:
            return None
        if route.spacing is None:
            return self.doubt_limit[route.level]
        ratios = [s / t for s, t in zip(route.spacing, self.levels.spacing)]
        finest = self.levels.level_of_spacing([s * min(ratios) for s in self.levels.spacing])
        coarsest = self.levels.level_of_spacing([s * max(ratios) for s in self.levels.spacing])
        limits = self.doubt_limit[finest : coarsest + 1]
        return None if None in limits else max(limits)
