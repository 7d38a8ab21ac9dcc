"""Columns and cells of a report's table, from the records of the cases."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..data.record_files import is_refused
from ..utils.geometry import format_size
from .pictures import sides_of

__all__ = ["Cell", "Column", "columns_of", "review_of", "volume_of"]

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """Text of a cell, and the value by which its column is sorted, text by default."""

    text: str
    key: float | str | None = None


@dataclass(frozen=True)
class Column:
    """A column: heading, its explanation, and the cell of a record."""

    title: str
    hint: str
    cell: Callable[[Record], Cell]
    is_number: bool = True


def volume_of(record: Record, names: Sequence[str]) -> float:
    """Volume of classes in mm3: on the grid of level 0 where that is known, else on the scan's grid."""
    total = 0.0
    for name in names:
        volume = record["volumes"][name]
        fine = volume.get("mm3_fine")
        total += float(volume["mm3"] if fine is None else fine)
    return total


def review_of(record: Record) -> list[str]:
    """Reasons to review a case."""
    return [str(reason) for reason in record.get("review") or ()]


def mean_of(value: Any) -> float | None:
    """A number of a record, or the ``mean`` of several; None if there is none."""
    if isinstance(value, Mapping):
        value = value.get("mean", value.get("total"))
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _number(value: float | None, digits: int) -> Cell:
    return Cell("", -1e9) if value is None else Cell(f"{value:.{digits}f}", value)


def _resolution(record: Record) -> Cell:
    spacing = [float(s) for s in record["spacing"]]
    return Cell(format_size([round(s, 2) for s in spacing]), math.prod(spacing))


def route_of(record: Record) -> str:
    """Level, whether the scan was resampled, and the side, in words."""
    if is_refused(record):
        return "not segmented"
    parts = [f"level {record['level']}"]
    if (record.get("route") or {}).get("is_resampled"):
        parts.append("resampled")
    if record.get("side"):
        parts.append(str(record["side"]))
    return ", ".join(parts)


def _volume_columns(records: Sequence[Record]) -> list[Column]:
    """A column per side where the classes have sides, else one per class; and the total of several classes."""
    groups: dict[str, list[str]] = {}
    for record in records:
        by_side = sides_of(list(record["volumes"]))
        if "" in by_side:
            by_side = {name: [name] for name in record["volumes"]}
        for title, names in by_side.items():
            groups.setdefault(title, names)
    hint = "mm³, on the grid of level 0 where it is known, else on the scan's own"

    def column(title: str, groups_of_total: Sequence[str]) -> Column:
        def cell(record: Record) -> Cell:
            names = [name for group in groups_of_total for name in groups[group] if name in record["volumes"]]
            return _number(volume_of(record, names) if names else None, 0)

        return Column(title, hint, cell)

    columns = [column(f"{title.replace('_', ' ')} mm³", [title]) for title in groups]
    return [*columns, column("total mm³", list(groups))] if len(groups) > 1 else columns


def columns_of(records: Sequence[Record]) -> list[Column]:
    """Returns the columns for these records. Measures that no record has are left out.

    Args:
        records: records of cases, see :py:class:`rare_unet_networks.data.CaseRecords`.
    """
    columns = [
        Column("scan", "name of the case", lambda r: Cell(str(r["case"])), is_number=False),
        Column("resolution mm", "voxel size of the scan", _resolution),
        Column("route", "where the scan entered the network", lambda r: Cell(route_of(r)), is_number=False),
        *_volume_columns(records),
    ]
    measures = (
        ("asymmetry", "asymmetry %", "left minus right volume in percent of their mean", 1),
        ("expected_dice", "expected Dice", "Dice that is expected of this prediction", 2),
        ("doubt", "doubt", "entropy per voxel of the structure: high where the network is unsure", 2),
    )
    for key, title, hint, digits in measures:
        if any(mean_of(record.get(key)) is not None for record in records):
            columns.append(Column(title, hint, lambda r, k=key, d=digits: _number(mean_of(r.get(k)), d)))
    return [*columns, Column("review", "reasons to look at the prediction", _review, is_number=False)]


def _review(record: Record) -> Cell:
    reasons = review_of(record)
    return Cell("; ".join(reasons), f"0 {reasons[0]}" if reasons else "1")
