"""Scores per case, scale, grid and class: one metric for validation during training and for ``run evaluating``."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterable, Sequence
from functools import cache
from statistics import fmean, stdev
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine
from ignite.metrics import Metric
from monai.data.utils import affine_to_spacing
from monai.metrics import compute_dice, compute_hausdorff_distance
from monai.networks.utils import one_hot
from monai.utils import optional_import

__all__ = [
    "KEY",
    "ROW",
    "SUMMARY_ROW",
    "ScaleDice",
    "dice_per_class",
    "distance_per_class",
    "has_scipy",
    "summarise",
    "volume_error_per_class",
]

logger = logging.getLogger(__name__)
KEY = ("case", "scale", "grid", "class")
ROW = (*KEY, "dice", "volume_error", "hd95")  # volume_error in percent of the label's volume, hd95 in mm
# What is summed up, and how it is read from a row.
MEASURES = {
    "dice": lambda row: row["dice"],
    "volume_error": lambda row: row["volume_error"],
    "abs_volume_error": lambda row: abs(row["volume_error"]),
    "hd95": lambda row: row["hd95"],
}
SUMMARY_ROW = ("scale", "grid", "class", "measure", "mean", "sd", "n", "left_out")
# grid -> keys of (prediction, label) in what the evaluator holds after its postprocessing
GRIDS = {
    "native": ("pred", "label"),
    "native_nearest": ("pred_nearest", "label_nearest"),
    "full": ("pred_full", "label_full"),
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


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else math.nan


def _mean_of_defined(values: Sequence[float]) -> float:
    return _mean([v for v in values if not math.isnan(v)])


def _line(
    scale: Any, grid: str, name: str, measure: str, values: Sequence[float], mean: float | None = None, left: int = 0
) -> dict[str, Any]:
    valid = [v for v in values if not math.isnan(v)]
    sd = stdev(valid) if len(valid) > 1 else math.nan
    mean = _mean(valid) if mean is None else mean
    return dict(zip(SUMMARY_ROW, (scale, grid, name, measure, mean, sd, len(valid), left)))


def summarise(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean, SD and counts of per-case rows.

    The mean of a class is over cases, without those where the measure is undefined (``left_out``; Dice: the class is
    in neither map); class ``mean`` is the mean over the classes' means, its SD that of the cases' class means, its
    ``n`` the cases where every class has the measure; scale ``average`` is the mean over the scales' means, its SD that
    between scales. A class without any value is left out of means of Dice, and makes other means NaN.

    Args:
        rows: dictionaries with the keys of ``ROW``, those of the measures as far as they were taken.

    Returns:
        dictionaries with the keys of ``SUMMARY_ROW``, by measure, grid, scale and class.
    """
    rows = list(rows)

    def keys(name: str, among: Iterable[dict]) -> list[Any]:
        return list(dict.fromkeys(row[name] for row in among))

    summary = []
    for measure, value in MEASURES.items():
        if not rows or measure.removeprefix("abs_") not in rows[0]:
            continue
        # A class that is nowhere has no Dice and is left out; one that was missed everywhere has no distance, and
        # the mean of the other classes would flatter.
        over = _mean_of_defined if measure == "dice" else _mean
        for grid in keys("grid", rows):
            start, of_grid = len(summary), [r for r in rows if r["grid"] == grid]
            for scale in keys("scale", of_grid):
                by_class: dict[str, list[float]] = {}
                by_case: dict[str, list[float]] = {}
                for r in (r for r in of_grid if r["scale"] == scale):
                    by_class.setdefault(r["class"], []).append(value(r))
                    if not math.isnan(value(r)):
                        by_case.setdefault(r["case"], []).append(value(r))
                lines = [_line(scale, grid, c, measure, v, left=sum(map(math.isnan, v))) for c, v in by_class.items()]
                mean = over([s["mean"] for s in lines])
                line = _line(scale, grid, "mean", measure, [_mean(v) for v in by_case.values()], mean)
                whole = sum(len(v) == len(lines) for v in by_case.values())
                line.update(n=whole, left_out=len({r["case"] for r in of_grid if r["scale"] == scale}) - whole)
                summary += [*lines, line]
            for name in [*keys("class", of_grid), "mean"]:
                means = [s["mean"] for s in summary[start:] if s["class"] == name and s["scale"] != "average"]
                summary.append(_line("average", grid, name, measure, means, over(means)))
    return summary


class ScaleDice(Metric):
    """Ignite metric: Dice of each class at each scale; over all, the average over scales on both grids.

    Reads ``pred``, ``label``, ``case`` and ``level`` of every decollated item, and of the other grids what is there:
    ``pred_nearest`` and ``label_nearest`` (the paper's labels), ``pred_full`` and ``label_full``.
    ``engine.state.metrics`` gets the mean of the native and, where there is one, the full grid's average under the
    metric's name and, beside it, one entry per scale and class of the native grid, as
    ``<name>_scale_0.5_anterior``. ``rows`` keeps the per-case rows of the epoch, ``summary`` what :py:func:`summarise`
    made of them.

    Args:
        class_names: names of the classes above background, in order.
        distances: whether the rows get surface distances (needs scipy), beside Dice and volume error.
    """

    def __init__(self, class_names: Sequence[str], distances: bool = False) -> None:
        self.class_names = list(class_names)
        self.distances = distances
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
                    scale = 0.5 ** int(item["level"])
                    key = (item["case"], scale if scale < 1 else 1, grid)
                    # The engine moves only the keys it knows to its device.
                    scores = self._scores(item[pred], item[label].to(item[pred].device))
                    self.rows += [dict(zip(ROW, (*key, n, *s))) for n, s in zip(self.class_names, zip(*scores))]

    def _scores(self, pred: torch.Tensor, label: torch.Tensor) -> list[list[float]]:
        """Measures in the order of ``ROW``, each a list by class."""
        num_classes = len(self.class_names) + 1
        scores = [function(pred, label, num_classes) for function in (dice_per_class, volume_error_per_class)]
        if self.distances:
            spacing = affine_to_spacing(label.affine, label.ndim - 1).tolist()
            scores.append(distance_per_class(pred, label, num_classes, spacing))
        return scores

    def compute(self) -> float:
        rows = self.rows
        if dist.is_available() and dist.is_initialized():
            gathered: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(gathered, rows)
            # A distributed sampler repeats cases to fill the last batch: count each once.
            rows = list({tuple(r[k] for k in KEY): r for part in gathered for r in part}.values())
        self.summary = summarise(rows)
        means = {(s["grid"], s["scale"], s["class"]): s["mean"] for s in self.summary if s["measure"] == "dice"}
        averages = [means[grid, "average", "mean"] for grid in SELECTED if (grid, "average", "mean") in means]
        return _mean(averages)

    def completed(self, engine: Engine, name: str) -> None:
        super().completed(engine, name)
        for s in self.summary:
            if s["grid"] == "native" and s["scale"] != "average" and s["measure"] == "dice":
                engine.state.metrics[f"{name}_scale_{s['scale']}_{s['class']}"] = s["mean"]
