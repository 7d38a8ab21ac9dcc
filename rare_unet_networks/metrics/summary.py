"""Summary of per-case scores: means, standard deviations and counts by class, scale and grid."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from statistics import fmean, stdev
from typing import Any

__all__ = ["KEY", "ROW", "SUMMARY_ROW", "mean_of_defined", "mean_or_nan", "summarise"]

KEY = ("case", "scale", "grid", "class")
ROW = (*KEY, "dice", "volume_error", "hd95")  # volume_error in percent of the label's volume, hd95 in mm
# Measures of the summary, and how each is read from a row.
MEASURES = {
    "dice": lambda row: row["dice"],
    "volume_error": lambda row: row["volume_error"],
    "abs_volume_error": lambda row: abs(row["volume_error"]),
    "hd95": lambda row: row["hd95"],
}
SUMMARY_ROW = ("scale", "grid", "class", "measure", "mean", "sd", "n", "left_out")


def mean_or_nan(values: Sequence[float]) -> float:
    """Mean of the values; NaN if there are none or one of them is NaN."""
    return fmean(values) if values else math.nan


def _defined(values: Iterable[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def mean_of_defined(values: Iterable[float]) -> float:
    """Mean of the values that are not NaN; NaN if there are none."""
    return mean_or_nan(_defined(values))


def _mean_over(measure: str, means: Sequence[float]) -> float:
    """Mean of means over classes or scales.

    A class that is in no map has no Dice and is left out. A class that was missed in every case has no distance: there
    the mean is NaN, because the mean of the other classes would flatter.
    """
    return mean_of_defined(means) if measure == "dice" else mean_or_nan(means)


def _line(scale: Any, grid: str, name: str, measure: str, values: Sequence[float], mean: float) -> dict[str, Any]:
    defined = _defined(values)
    sd = stdev(defined) if len(defined) > 1 else math.nan
    return dict(zip(SUMMARY_ROW, (scale, grid, name, measure, mean, sd, len(defined), 0)))


def _distinct(rows: Iterable[dict[str, Any]], column: str) -> list[Any]:
    """Values of a column, each once, in the order of the rows."""
    return list(dict.fromkeys(row[column] for row in rows))


def _scale_lines(rows: Sequence[dict[str, Any]], measure: str, regions: Collection[str]) -> list[dict[str, Any]]:
    """Summary of a measure on one grid at one scale: a line per class, then the line of class ``mean``."""
    scale, grid = rows[0]["scale"], rows[0]["grid"]
    values_by_class: dict[str, list[float]] = {}
    values_by_case: dict[str, list[float]] = {}  # defined values only, without regions
    for row in rows:
        value = MEASURES[measure](row)
        values_by_class.setdefault(row["class"], []).append(value)
        if row["class"] not in regions and not math.isnan(value):
            values_by_case.setdefault(row["case"], []).append(value)

    lines = []
    class_means = []
    for name, values in values_by_class.items():
        defined = _defined(values)
        line = _line(scale, grid, name, measure, values, mean_or_nan(defined))
        line["left_out"] = len(values) - len(defined)
        lines.append(line)
        if name not in regions:
            class_means.append(line["mean"])

    case_means = []
    complete_cases = 0
    for values in values_by_case.values():
        case_means.append(mean_or_nan(values))
        if len(values) == len(class_means):
            complete_cases += 1
    line = _line(scale, grid, "mean", measure, case_means, _mean_over(measure, class_means))
    line.update(n=complete_cases, left_out=len(_distinct(rows, "case")) - complete_cases)
    return [*lines, line]


def summarise(rows: Iterable[dict[str, Any]], regions: Collection[str] = ()) -> list[dict[str, Any]]:
    """Computes mean, SD and counts of per-case rows.

    - The mean of a class is over cases. Cases where the measure is undefined are left out (``left_out``; Dice is
      undefined where the class is in neither map).
    - Class ``mean`` is the mean of the class means. Its SD is that of the cases' class means, its ``n`` the number of
      cases where every class has the measure.
    - Scale ``average`` is the mean of the means of the scales, its SD that between scales.
    - A class without any value is left out of means of Dice, and makes means of other measures NaN.

    Args:
        rows: dictionaries with the keys of ``ROW``; measures that were not taken may be missing.
        regions: classes that are unions of others; they do not count in the means over classes.

    Returns:
        dictionaries with the keys of ``SUMMARY_ROW``, by measure, grid, scale and class.
    """
    rows = list(rows)
    summary = []
    for measure in MEASURES:
        if not rows or measure.removeprefix("abs_") not in rows[0]:
            continue
        for grid in _distinct(rows, "grid"):
            grid_rows = [row for row in rows if row["grid"] == grid]
            scale_lines = []
            for scale in _distinct(grid_rows, "scale"):
                scale_rows = [row for row in grid_rows if row["scale"] == scale]
                scale_lines += _scale_lines(scale_rows, measure, regions)
            summary += scale_lines
            for name in [*_distinct(grid_rows, "class"), "mean"]:
                means = [line["mean"] for line in scale_lines if line["class"] == name]
                summary.append(_line("average", grid, name, measure, means, _mean_over(measure, means)))
    return summary
