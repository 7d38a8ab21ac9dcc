"""Differences between two methods on the same cases, with an interval that knows which cases are one person's."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..metrics.summary import KEY

__all__ = ["paired_differences", "read_rows"]

KEYS = ("scale", "grid")


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """Rows of a ``per_case.csv`` with its measures as numbers.

    Raises:
        ValueError: when the file lacks a column that every such file has.
    """
    with open(path, newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    for name in (*KEY, "dice"):
        if not rows or name not in rows[0]:
            raise ValueError(f"{path} must be a per_case.csv with the column {name!r}.")
    measures = [name for name in rows[0] if name not in KEY]
    for row in rows:
        row.update({name: float(row[name]) if row[name] else math.nan for name in measures})
    return rows


def paired_differences(
    ours: Sequence[dict[str, Any]],
    theirs: Sequence[dict[str, Any]],
    subject_of: Callable[[str], Any],
    measure: str = "dice",
    num_resamples: int = 10000,
    seed: int = 0,
    regions: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Mean difference, ours minus theirs, per scale and grid, with a bootstrap 95 % interval over subjects.

    The mean is that of the tables: over cases for each class, then over classes. Only cases scored by both count. Whole
    subjects are drawn with replacement, all their cases with them: two volumes of one person are not independent.

    Args:
        ours: rows of one method's ``per_case.csv``.
        theirs: rows of the other's.
        subject_of: gives the subject of a case's name.
        measure: column to compare.
        num_resamples: bootstrap samples.
        seed: of the bootstrap.
        regions: classes that are unions of others, and do not count in the mean.

    Returns:
        dictionaries with ``scale``, ``grid``, ``difference``, ``low``, ``high``, ``cases`` and ``subjects``, for every
        scale and grid that both have.

    Raises:
        ValueError: when the two share no case.
    """
    other = {tuple(row[k] for k in ("case", *KEYS, "class")): row[measure] for row in theirs}
    # (scale, grid) -> class -> subject -> differences
    found: dict[tuple, dict[str, dict[Any, list[float]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    cases: dict[tuple, set[str]] = defaultdict(set)
    for row in ours:
        key = tuple(row[k] for k in KEYS)
        difference = row[measure] - other.get((row["case"], *key, row["class"]), math.nan)
        if not math.isnan(difference) and row["class"] not in regions:
            found[key][row["class"]][subject_of(row["case"])].append(difference)
            cases[key].add(row["case"])
    if not found:
        raise ValueError("the two methods must have cases in common, got none.")
    lines = []
    for key, classes in found.items():
        subjects = sorted({s for by_subject in classes.values() for s in by_subject})
        sums = np.array([[sum(by[s]) for s in subjects] for by in classes.values()])  # (classes, subjects)
        counts = np.array([[len(by[s]) for s in subjects] for by in classes.values()])
        uniform = np.full(len(subjects), 1 / len(subjects))
        draws = np.random.default_rng(seed).multinomial(len(subjects), uniform, size=num_resamples)
        with np.errstate(invalid="ignore"):  # a sample that holds no case of a class
            means = ((draws @ sums.T) / (draws @ counts.T)).mean(axis=1)
        low, high = np.nanpercentile(means, [2.5, 97.5])
        difference = float((sums.sum(axis=1) / counts.sum(axis=1)).mean())
        values = (difference, float(low), float(high), len(cases[key]), len(subjects))
        names = (*KEYS, "difference", "low", "high", "cases", "subjects")
        lines.append(dict(zip(names, (*key, *values))))
    return lines
