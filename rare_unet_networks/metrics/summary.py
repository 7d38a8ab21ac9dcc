"""What per-case scores come to: means, standard deviations and counts, by class, scale and grid."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from statistics import fmean, stdev
from typing import Any

__all__ = ["KEY", "ROW", "SUMMARY_ROW", "mean_or_nan", "summarise"]

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


def mean_or_nan(values: Sequence[float]) -> float:
    return fmean(values) if values else math.nan


def _mean_of_defined(values: Sequence[float]) -> float:
    return mean_or_nan([v for v in values if not math.isnan(v)])


def _line(
    scale: Any, grid: str, name: str, measure: str, values: Sequence[float], mean: float | None = None, left: int = 0
) -> dict[str, Any]:
    valid = [v for v in values if not math.isnan(v)]
    sd = stdev(valid) if len(valid) > 1 else math.nan
    mean = mean_or_nan(valid) if mean is None else mean
    return dict(zip(SUMMARY_ROW, (scale, grid, name, measure, mean, sd, len(valid), left)))


def summarise(rows: Iterable[dict[str, Any]], regions: Collection[str] = ()) -> list[dict[str, Any]]:
    """Mean, SD and counts of per-case rows.

    The mean of a class is over cases, without those where the measure is undefined (``left_out``; Dice: the class is
    in neither map); class ``mean`` is the mean over the classes' means, its SD that of the cases' class means, its
    ``n`` the cases where every class has the measure; scale ``average`` is the mean over the scales' means, its SD that
    between scales. A class without any value is left out of means of Dice, and makes other means NaN.

    Args:
        rows: dictionaries with the keys of ``ROW``, those of the measures as far as they were taken.
        regions: classes that are unions of others, and do not count in the means over classes.

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
        over = _mean_of_defined if measure == "dice" else mean_or_nan
        for grid in keys("grid", rows):
            start, of_grid = len(summary), [r for r in rows if r["grid"] == grid]
            for scale in keys("scale", of_grid):
                by_class: dict[str, list[float]] = {}
                by_case: dict[str, list[float]] = {}
                for r in (r for r in of_grid if r["scale"] == scale):
                    by_class.setdefault(r["class"], []).append(value(r))
                    if r["class"] not in regions and not math.isnan(value(r)):
                        by_case.setdefault(r["case"], []).append(value(r))
                lines = [_line(scale, grid, c, measure, v, left=sum(map(math.isnan, v))) for c, v in by_class.items()]
                own = [s for s in lines if s["class"] not in regions]
                mean = over([s["mean"] for s in own])
                line = _line(scale, grid, "mean", measure, [mean_or_nan(v) for v in by_case.values()], mean)
                whole = sum(len(v) == len(own) for v in by_case.values())
                line.update(n=whole, left_out=len({r["case"] for r in of_grid if r["scale"] == scale}) - whole)
                summary += [*lines, line]
            for name in [*keys("class", of_grid), "mean"]:
                means = [s["mean"] for s in summary[start:] if s["class"] == name and s["scale"] != "average"]
                summary.append(_line("average", grid, name, measure, means, over(means)))
    return summary
