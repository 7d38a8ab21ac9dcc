"""MONAI dictionary transforms that look at a prediction before it is written: can it be used, must it be reviewed?"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from ..levels import ResolutionLevels
from ..utils.geometry import spacing_of
from ..utils.quality import add_warning, distance_warning, doubt, slices_through, touches_border, warnings_of
from ..utils.resampling import as_plain_tensor

__all__ = ["CheckFinited", "ReviewPredictiond"]

logger = logging.getLogger(__name__)


class CheckFinited(MapTransform):
    """Refuses logits that are NaN or infinite, from which a label map without foreground would be made.

    Args:
        keys: logits, or dictionaries of them by grid.

    Raises:
        ValueError: when a value is not finite.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        for key in self.keys:
            logits = data[key]
            for grid in logits.values() if isinstance(logits, Mapping) else [logits]:
                if not torch.isfinite(as_plain_tensor(grid)).all():
                    raise ValueError("the network's output has values that are NaN or infinite: it cannot be used")
        return dict(data)


class ReviewPredictiond(MapTransform):
    """Writes into a prediction's metadata how much the network doubts it, and why somebody should look at it.

    ``meta["doubt"]`` is :py:func:`rare_unet_networks.utils.quality.doubt`, a number. ``meta["review"]`` is a list of
    reasons in words, empty if there is none: the doubt is above its limit, the prediction touches the border of the
    scan, a class is empty, the structure extends over too few slices, the scan is coarser than any level, and what was
    warned of when the scan was read. New reasons are logged as warnings. For probabilities, before ``AsDiscreted``.

    Args:
        keys: probabilities on the scan's grid, shape (C, *spatial_size), as of :py:class:`ResampleToBothGridsd` and
            ``Invertd``; ``<key>_fine`` on the grid of level 0, which is looked at where it is there.
        levels: the resolution levels of the task.
        class_names: names of the classes above background, in order.
        doubt_limit: by level, the doubt above which is warned; None, for a level or for all, does not warn. Limits
            belong to weights: :py:func:`rare_unet_networks.engines.find_doubt_limits` finds them. A scan with thick
            slices is measured by the largest limit of the levels between its finest and its coarsest axis.
        min_slices: fewest slices of the scan that a structure should extend over.
        image_key: the scan the network saw.

    Raises:
        ValueError: when there are not as many limits as levels.
    """

    def __init__(
        self,
        keys: KeysCollection,
        levels: ResolutionLevels,
        class_names: Sequence[str],
        doubt_limit: Sequence[float | None] | None = None,
        min_slices: float = 2.0,
        image_key: str = "image",
    ) -> None:
        super().__init__(keys)
        if doubt_limit is not None and len(doubt_limit) != levels.num_levels:
            raise ValueError(f"doubt_limit must have {levels.num_levels} entries, one by level, got {doubt_limit}.")
        self.levels = levels
        self.class_names = list(class_names)
        self.doubt_limit = None if doubt_limit is None else list(doubt_limit)
        self.min_slices = min_slices
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        image = d[self.image_key]
        for key in self.keys:
            looked_at = d.get(f"{key}_fine", d[key])
            value = float(doubt(as_plain_tensor(looked_at)[None]))
            meta = dict(image.meta)
            for reason in self._reasons(looked_at, d[key], image, value):
                logger.warning(f"{image.meta.get('filename_or_obj', 'scan')}: {reason}")
                add_warning(meta, reason)
            distance = distance_warning(self.levels, spacing_of(image.affine, image.ndim - 1))
            if distance:
                add_warning(meta, distance)  # logged by the inferer
            for k in (key, f"{key}_fine"):
                if k in d:
                    d[k].meta["doubt"] = value
                    d[k].meta["review"] = warnings_of(meta)
        return d

    def _reasons(self, looked_at: MetaTensor, native: MetaTensor, image: MetaTensor, value: float) -> list[str]:
        reasons = []
        limit = self._limit(spacing_of(image.affine, image.ndim - 1))
        if limit is not None and value > limit:
            reasons.append(
                f"the network doubts its prediction ({value:.2f}, at most {limit:.2f} on scans like those it was "
                "trained on): the header may name the wrong axes, or the contrast or the part of the body be another"
            )
        labels = as_plain_tensor(looked_at).argmax(dim=0)
        empty = [name for index, name in enumerate(self.class_names, start=1) if not bool((labels == index).any())]
        if empty:
            reasons.append(f"no voxel is {', '.join(empty)}")
        if len(empty) == len(self.class_names):
            return reasons
        if touches_border(labels):
            reasons.append("the prediction touches the border of the scan: the structure may be cut")
        axes = labels.ndim
        slices = slices_through(labels, spacing_of(looked_at.affine, axes), spacing_of(native.affine, axes))
        if min(slices) < self.min_slices:
            reasons.append(f"the prediction extends over {min(slices):.1f} slices only, on an axis of the scan")
        return reasons

    def _limit(self, spacing: Sequence[float]) -> float | None:
        if self.doubt_limit is None:
            return None
        finest, coarsest = (
            self.levels.level_of_spacing([s * ratio for s in self.levels.spacing])
            for ratio in (f(s / t for s, t in zip(spacing, self.levels.spacing)) for f in (min, max))
        )
        limits = self.doubt_limit[finest : coarsest + 1]
        return None if None in limits else max(limits)
