"""CSV files that are whole after every case, and tables for the log."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from .distributed import file_lock

__all__ = ["CaseTable", "aligned", "rows_there"]

Row = dict[str, Any]
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what begins so, a spreadsheet takes for a formula and runs it


def as_cell(value: Any) -> Any:
    """A value as it stands in a CSV file: a text that a spreadsheet would run has an apostrophe in front."""
    return f"'{value}" if isinstance(value, str) and value.lstrip("'").startswith(FORMULA) else value


def from_cell(text: Any) -> Any:
    """The value that :py:func:`as_cell` wrote."""
    quoted = isinstance(text, str) and text.startswith("'") and text.lstrip("'").startswith(FORMULA)
    return text[1:] if quoted else text


def rows_there(path: Path, columns: Sequence[str]) -> list[Row]:
    """Rows of a file; none where there is no file. A last line that was cut short is none, either.

    Raises:
        ValueError: when its columns are others: whatever it holds, it is not overwritten.
    """
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8-sig")  # spreadsheets put a mark at the beginning
    reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
    rows = [{column: from_cell(cell) for column, cell in row.items()} for row in reader]
    if text and tuple(reader.fieldnames or ()) != tuple(columns):
        there = ", ".join(reader.fieldnames or ())
        raise ValueError(f"{path}: expected the columns {', '.join(columns)}, got {there}: move it elsewhere.")
    return rows


def _formatted(row: Row) -> Row:
    return {k: f"{v:.4f}" if isinstance(v, float) and k != "scale" else as_cell(v) for k, v in row.items()}


def _lines(columns: Sequence[str], rows: Sequence[Row]) -> bytes:
    text = io.StringIO(newline="")
    csv.DictWriter(text, columns).writerows(map(_formatted, rows))
    return text.getvalue().encode()


class CaseTable:
    """A CSV file with some rows per case, whole after every case, which several processes may write at once.

    Rows are appended, in one write; only a case that has rows already makes the whole file be written anew.

    Args:
        path: where it lies.
        columns: its columns.
        keep: keep the rows that are there already.

    Raises:
        ValueError: when rows are to be kept of a file with other columns.
    """

    def __init__(self, path: Path, columns: Sequence[str], keep: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.columns = path, columns
        with file_lock(path):
            rows = rows_there(path, columns) if keep else []
            self._write(rows)
        self._cases = {row["case"] for row in rows}

    def _write(self, rows: Sequence[Row]) -> None:
        # Whatever happens while writing, the rows of before are not lost.
        new = self.path.with_suffix(".new")
        new.write_bytes(_lines(self.columns, [dict(zip(self.columns, self.columns)), *rows]))
        new.replace(self.path)

    def replace(self, cases: Collection[str], rows: Sequence[Row] = ()) -> None:
        """Writes rows, in place of what is there of these cases."""
        present = not self._cases.isdisjoint(cases)
        if not present and not rows:
            return
        with file_lock(self.path):
            if present:
                kept = [row for row in rows_there(self.path, self.columns) if row["case"] not in cases]
                self._write([*kept, *rows])
            else:
                self.append(rows)
        self._cases = (self._cases - set(cases)) | {row["case"] for row in rows}

    def append(self, rows: Sequence[Row]) -> None:
        """Writes rows below those that are there."""
        with open(self.path, "ab", buffering=0) as file:
            file.write(_lines(self.columns, rows))


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines with aligned columns."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows)
