"""Dice per case, scale, grid and class: one metric for validation during training and for ``run evaluating``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean, stdev
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine
from ignite.metrics import Metric
from monai.metrics import compute_dice
from monai.networks.utils import one_hot

__all__ = ["ROW", "SUMMARY_ROW", "ScaleDice", "dice_per_class", "summarise"]

ROW = ("case", "scale", "grid", "class", "dice")
SUMMARY_ROW = ("scale", "grid", "class", "mean", "sd", "n", "left_out")
# grid -> keys of (prediction, label) in what the evaluator holds after its postprocessing
GRIDS = {"native": ("pred", "label"), "full": ("pred_full", "label_full")}


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


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else math.nan


def summarise(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean, SD and counts of per-case rows.

    The mean of a class is over cases, without those that have the class in neither map (``left_out``); class ``mean``
    is the mean over the classes' means, its SD that of the cases' class means; scale ``average`` is the mean over the
    scales' means, its SD that between scales.

    Args:
        rows: dictionaries with the keys of ``ROW``.

    Returns:
        dictionaries with the keys of ``SUMMARY_ROW``, by grid, scale and class.
    """
    rows = list(rows)

    def keys(name: str) -> list[Any]:
        return list(dict.fromkeys(row[name] for row in rows))

    def line(
        scale: Any, grid: str, name: str, values: Sequence[float], mean: float | None = None, left: int = 0
    ) -> dict:
        valid = [v for v in values if not math.isnan(v)]
        sd = stdev(valid) if len(valid) > 1 else math.nan
        return dict(zip(SUMMARY_ROW, (scale, grid, name, _mean(valid) if mean is None else mean, sd, len(valid), left)))

    summary = []
    for grid in keys("grid"):
        start = len(summary)
        for scale in keys("scale"):
            here = [r for r in rows if r["grid"] == grid and r["scale"] == scale]
            by_class: dict[str, list[float]] = {}
            by_case: dict[str, list[float]] = {}
            for r in here:
                by_class.setdefault(r["class"], []).append(r["dice"])
                if not math.isnan(r["dice"]):
                    by_case.setdefault(r["case"], []).append(r["dice"])
            lines = [line(scale, grid, c, v, left=sum(map(math.isnan, v))) for c, v in by_class.items()]
            mean = _mean([s["mean"] for s in lines if not math.isnan(s["mean"])])
            summary += [*lines, line(scale, grid, "mean", [_mean(v) for v in by_case.values()], mean)]
        for name in [*keys("class"), "mean"]:
            means = [s["mean"] for s in summary[start:] if s["class"] == name and s["scale"] != "average"]
            summary.append(line("average", grid, name, means))
    return summary


class ScaleDice(Metric):
    """Ignite metric: Dice of each class at each scale, averaged over scales on the native grid.

    Reads ``pred``, ``label``, ``case`` and ``level`` (and ``pred_full``, ``label_full`` where present) of every
    decollated item. ``engine.state.metrics`` gets the average under the metric's name and, beside it, one entry per
    scale and class, as ``<name>_scale_0.5_anterior``. ``rows`` keeps the per-case rows of the epoch, ``summary`` what
    :py:func:`summarise` made of them.

    Args:
        class_names: names of the classes above background, in order.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = list(class_names)
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
                if pred in item:
                    # The engine moves only the keys it knows to its device.
                    dice = dice_per_class(item[pred], item[label].to(item[pred].device), len(self.class_names) + 1)
                    scale = 0.5 ** int(item["level"])
                    self.rows += [
                        dict(zip(ROW, (item["case"], scale if scale < 1 else 1, grid, name, d)))
                        for name, d in zip(self.class_names, dice)
                    ]

    def compute(self) -> float:
        rows = self.rows
        if dist.is_available() and dist.is_initialized():
            gathered: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(gathered, rows)
            # A distributed sampler repeats cases to fill the last batch: count each once.
            rows = list({tuple(r[k] for k in ROW[:-1]): r for part in gathered for r in part}.values())
        self.summary = summarise(rows)
        means = {(s["grid"], s["scale"], s["class"]): s["mean"] for s in self.summary}
        return means.get(("native", "average", "mean"), math.nan)

    def completed(self, engine: Engine, name: str) -> None:
        super().completed(engine, name)
        for s in self.summary:
            if s["grid"] == "native" and s["scale"] != "average":
                engine.state.metrics[f"{name}_scale_{s['scale']}_{s['class']}"] = s["mean"]
