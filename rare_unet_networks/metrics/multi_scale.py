"""Scores per case, scale, grid and class: one metric for validation during training and for ``run evaluating``."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from ignite.engine import Engine
from ignite.metrics import Metric
from monai.data.utils import affine_to_spacing
from monai.metrics import compute_dice, compute_hausdorff_distance
from monai.networks.utils import one_hot
from monai.utils import optional_import

from ..levels import level_scale
from ..utils.distributed import all_gather, world_size
from .summary import KEY, ROW, SUMMARY_ROW, mean_or_nan, summarise

__all__ = ["MultiScaleMetrics", "dice_per_class", "distance_per_class", "has_scipy", "volume_error_per_class"]

logger = logging.getLogger(__name__)
# grid -> keys of (prediction, label) in what the evaluator holds after its postprocessing
GRIDS = {
    "native": ("pred", "label"),
    "native_nearest": ("pred_nearest", "label_nearest"),
    "full": ("pred_fine", "label_fine"),
}
SELECTED = ("native", "full")  # what the best weights of a training are chosen by


def dice_per_class(pred: torch.Tensor, label: torch.Tensor, num_classes: int) -> list[float]:
    """Dice of each class above background; NaN where a class is in neither map, 0 where it is in one of them only.

    Args:
        pred: class indices, shape (1, D, H, W).
        label: likewise.
        num_classes: classes, background included.

    Raises:
        ValueError: when the shapes differ.
    """
    if pred.shape != label.shape:
        raise ValueError(f"pred and label must have one shape, got {tuple(pred.shape)} and {tuple(label.shape)}.")
    maps = [one_hot(torch.as_tensor(m)[None].long(), num_classes) for m in (pred, label)]
    dice = compute_dice(*maps, include_background=False, ignore_empty=False)[0]  # (classes,), 1 where both are empty
    empty = (maps[0] + maps[1])[0, 1:].flatten(1).sum(dim=1) == 0
    return [math.nan if e else float(d) for d, e in zip(dice, empty)]


def distance_per_class(
    pred: torch.Tensor, label: torch.Tensor, num_classes: int, spacing: Sequence[float]
) -> list[float]:
    """95th percentile of the symmetric surface distance in mm; NaN where a class is in only one map or in neither.

    Args:
        pred: class indices, shape (1, D, H, W).
        label: likewise.
        num_classes: classes, background included.
        spacing: voxel size in mm.
    """
    maps = [one_hot(torch.as_tensor(m)[None].long().cpu(), num_classes) for m in (pred, label)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI's on empty classes: NaN says it
        hd95 = compute_hausdorff_distance(*maps, include_background=False, percentile=95, spacing=list(spacing))[0]
    present = (maps[0].flatten(2).any(dim=2) & maps[1].flatten(2).any(dim=2))[0, 1:]
    return [float(d) if p else math.nan for d, p in zip(hd95, present)]


def volume_error_per_class(pred: torch.Tensor, label: torch.Tensor, num_classes: int) -> list[float]:
    """How much larger (+) or smaller (-) than the label's a class is, in percent; NaN where the label has none of it.

    Args:
        pred: class indices, shape (1, D, H, W).
        label: likewise.
        num_classes: classes, background included.
    """
    pairs = [(int((pred == c).sum()), int((label == c).sum())) for c in range(1, num_classes)]
    return [100 * (p / t - 1) if t else math.nan for p, t in pairs]


@cache
def has_scipy() -> bool:
    """Whether surface distances can be computed; says so once if not. For a config's ``distances``."""
    _, found = optional_import("scipy")
    if not found:
        logger.warning("scipy is not installed: no surface distances (pip install 'rare-unet-networks[evaluate]')")
    return found


def _union(labels: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
    """1 where a map of class indices shows one of ``classes``; keeps a ``MetaTensor``'s affine."""
    return sum((labels == c) for c in classes) > 0


class MultiScaleMetrics(Metric):
    """Ignite metric: Dice of each class at each scale; over all, the average over scales on both grids.

    Reads ``pred``, ``label``, ``case`` and ``level`` of every decollated item, and of the other grids what is there:
    ``pred_nearest`` and ``label_nearest`` (the paper's labels), ``pred_fine`` and ``label_fine``.
    ``engine.state.metrics`` gets the mean of the native and, where there is one, the full grid's average under the
    metric's name and, beside it, one entry per scale and class of the native grid, as
    ``<name>_scale_0.5_anterior``. ``rows`` keeps the per-case rows of the epoch, at its end those of all
    processes, ``summary`` what :py:func:`summarise` made of them.

    Args:
        class_names: names of the classes above background, in order.
        distances: whether the rows get surface distances (needs scipy), beside Dice and volume error.
        regions: unions of classes that are scored as well, each a list of class indices by its name, such as BraTS's
            whole tumour. Means over classes leave them out.
    """

    columns = ROW  # of a row
    group, summary_columns = "scale", SUMMARY_ROW  # what the summary's lines are of, and its columns

    def __init__(
        self,
        class_names: Sequence[str],
        distances: bool = False,
        regions: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self.class_names = list(class_names)
        self.distances = distances
        self.regions = {name: list(classes) for name, classes in (regions or {}).items()}
        super().__init__()

    def reset(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.summary: list[dict[str, Any]] = []

    def iteration_completed(self, engine: Engine) -> None:
        # A guarded evaluator leaves no output where a case failed.
        if engine.state.output:
            self.update([{**b, **o} for b, o in zip(engine.state.batch, engine.state.output)])

    def update(self, output: Sequence[dict[str, Any]]) -> None:
        for item in output:
            for grid, (pred, label) in GRIDS.items():
                if pred in item and label in item:
                    key = self._key(item, grid)
                    # The engine moves only the keys it knows to its device.
                    maps = item[pred], item[label].to(item[pred].device)
                    self._add(key, self.class_names, *maps)
                    for name, classes in self.regions.items():
                        self._add(key, [name], *(_union(m, classes) for m in maps))

    def _key(self, item: Mapping[str, Any], grid: str) -> tuple:
        """What a row is of, in the order of ``columns``."""
        scale = level_scale(int(item["level"]))
        return item["case"], 1 / scale if scale > 1 else 1, grid

    def _add(self, key: tuple, names: Sequence[str], pred: torch.Tensor, label: torch.Tensor) -> None:
        scores = self._scores(pred, label, len(names) + 1)
        self.rows += [dict(zip(self.columns, (*key, name, *of_class))) for name, of_class in zip(names, zip(*scores))]

    def _scores(self, pred: torch.Tensor, label: torch.Tensor, num_classes: int) -> list[list[float]]:
        """Measures in the order of ``ROW``, each a list by class."""
        scores = [function(pred, label, num_classes) for function in (dice_per_class, volume_error_per_class)]
        if self.distances:
            spacing = affine_to_spacing(label.affine, label.ndim - 1).tolist()
            scores.append(distance_per_class(pred, label, num_classes, spacing))
        return scores

    def compute(self) -> float:
        if world_size() > 1:
            # A distributed sampler may repeat cases to fill the last batch: count each once.
            rows = {tuple(r[k] for k in KEY): r for part in all_gather(self.rows) for r in part}.values()
            # In the order of a datalist: by case, then from the finest scale on.
            self.rows = sorted(rows, key=lambda r: (r["case"], -r["scale"]))
        self.summary = summarise(self.rows, self.regions)
        means = {(s["grid"], s["scale"], s["class"]): s["mean"] for s in self.summary if s["measure"] == "dice"}
        averages = [means[grid, "average", "mean"] for grid in SELECTED if (grid, "average", "mean") in means]
        return mean_or_nan(averages)

    def completed(self, engine: Engine, name: str) -> None:
        super().completed(engine, name)
        for s in self.summary:
            if s["grid"] == "native" and s["scale"] != "average" and s["measure"] == "dice":
                engine.state.metrics[f"{name}_scale_{s['scale']}_{s['class']}"] = s["mean"]
