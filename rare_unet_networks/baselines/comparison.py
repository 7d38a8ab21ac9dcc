"""Differences between two methods on the same cases, with confidence intervals over subjects."""

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
    """Reads the rows of a ``per_case.csv``, with its measures as numbers.

    Raises:
        ValueError: If a column that every such file has is missing.
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
    """Computes the mean difference (ours minus theirs) per scale and grid, with a bootstrap 95 % interval.

    As in the tables, the mean is taken over the cases of each class, then over classes. Only cases that both methods
    have count. The bootstrap draws whole subjects with all their cases, because the volumes of a subject are not
    independent.

    Args:
        ours: rows of one method's ``per_case.csv``.
        theirs: rows of the other's.
        subject_of: returns the subject of a case, by the case's name.
        measure: column to compare.
        num_resamples: bootstrap samples.
        seed: seed of the bootstrap.
        regions: classes that are unions of other classes; they do not count in the mean.

    Returns:
        dictionaries with ``scale``, ``grid``, ``difference``, ``low``, ``high``, ``cases`` and ``subjects``, one for
        each scale and grid that both methods have.

    Raises:
        ValueError: If the two methods share no case.
    """
    their_values: dict[tuple, float] = {}
    for row in theirs:
        their_values[(row["case"], *(row[k] for k in KEYS), row["class"])] = row[measure]
    # (scale, grid) -> class -> subject -> differences
    differences: dict[tuple, dict[str, dict[Any, list[float]]]] = {}
    cases: dict[tuple, set[str]] = defaultdict(set)
    for row in ours:
        key = tuple(row[k] for k in KEYS)
        difference = row[measure] - their_values.get((row["case"], *key, row["class"]), math.nan)
        if not math.isnan(difference) and row["class"] not in regions:
            by_class = differences.setdefault(key, defaultdict(lambda: defaultdict(list)))
            by_class[row["class"]][subject_of(row["case"])].append(difference)
            cases[key].add(row["case"])
    if not differences:
        raise ValueError("the two methods must have cases in common, got none.")
    lines = []
    for key, by_class in differences.items():
        subjects = sorted(set().union(*by_class.values()))
        sums = np.array(
            [[sum(by_subject[s]) for s in subjects] for by_subject in by_class.values()]
        )  # (classes, subjects)
        counts = np.array([[len(by_subject[s]) for s in subjects] for by_subject in by_class.values()])
        uniform = np.full(len(subjects), 1 / len(subjects))
        draws = np.random.default_rng(seed).multinomial(len(subjects), uniform, size=num_resamples)
        with np.errstate(invalid="ignore"):  # a bootstrap sample without a case of some class
            means = ((draws @ sums.T) / (draws @ counts.T)).mean(axis=1)
        low, high = np.nanpercentile(means, [2.5, 97.5])
        difference = float((sums.sum(axis=1) / counts.sum(axis=1)).mean())
        values = (difference, float(low), float(high), len(cases[key]), len(subjects))
        names = (*KEYS, "difference", "low", "high", "cases", "subjects")
        lines.append(dict(zip(names, (*key, *values))))
    return lines
