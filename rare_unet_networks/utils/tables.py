"""Reads and writes CSV files, and formats tables for the log."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .files import replaced_as_a_whole

__all__ = ["aligned", "append_rows", "formatted", "read_rows", "write_rows"]

Row = dict[str, Any]
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet runs text that begins so as a formula


def _is_formula(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text.startswith(FORMULA)
    return False  # a negative number


def as_cell(value: Any) -> Any:
    """Value of a cell of a CSV file: text that a spreadsheet would run as a formula gets an apostrophe in front."""
    return f"'{value}" if isinstance(value, str) and _is_formula(value.lstrip("'")) else value


def from_cell(text: Any) -> Any:
    """Inverse of :py:func:`as_cell`."""
    quoted = isinstance(text, str) and text.startswith("'") and _is_formula(text.lstrip("'"))
    return text[1:] if quoted else text


def read_rows(path: Path, required: Sequence[str]) -> list[Row]:
    """Reads the rows of a file; none if it does not exist. An incomplete last line is ignored.

    Args:
        path: the file.
        required: columns that it must have; it may have more.

    Raises:
        ValueError: if a column is missing.
    """
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8-sig")  # spreadsheets write a byte order mark
    reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
    rows = [{column: from_cell(cell) for column, cell in row.items()} for row in reader]
    columns = reader.fieldnames or ()
    if text and not set(required) <= set(columns):
        raise ValueError(
            f"{path}: expected the columns {', '.join(required)}, got {', '.join(columns)}: move it elsewhere."
        )
    return rows


def formatted(row: Row) -> Row:
    """Formats the numbers of a row with four decimals."""
    return {k: f"{v:.4f}" if isinstance(v, float) and k != "scale" else v for k, v in row.items()}


def _lines(columns: Sequence[str], rows: Sequence[Row]) -> bytes:
    text = io.StringIO(newline="")
    cells = csv.DictWriter(text, columns)
    for row in rows:
        cells.writerow({column: as_cell(value) for column, value in formatted(row).items()})
    return text.getvalue().encode()


def write_rows(path: Path, columns: Sequence[str], rows: Sequence[Row] = ()) -> None:
    """Writes a file with a header line, and replaces an old one atomically."""
    names = dict(zip(columns, columns))
    with replaced_as_a_whole(path) as temporary:
        temporary.write_bytes(_lines(columns, [names, *rows]))


def append_rows(path: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Appends rows to a file, in one write."""
    with open(path, "ab", buffering=0) as file:
        file.write(_lines(columns, rows))


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Formats rows of cells as lines with aligned columns."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows)
