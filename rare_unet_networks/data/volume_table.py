"""``volumes.csv``, made from the records of a folder, and what else a folder has once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..utils.claims import Claims
from ..utils.tables import formatted, read_rows, write_rows
from .bids_files import write_bids_files
from .colour_tables import write_colour_tables
from .datalists import POSTFIXES, prediction_path
from .record_files import claim_path, read_records, volume_rows

__all__ = ["check_volumes", "collect_volumes"]

logger = logging.getLogger(__name__)
TABLE = "volumes.csv"
COLUMNS = ("case", "class", "voxels", "mm3", "mm3_fine", "spacing", "level", "seconds", "grid", "side", "asymmetry")
COLUMNS += ("review",)
RENAMED = {"mm3_full": "mm3_fine"}  # columns of version 0.6

Row = dict[str, Any]


def check_volumes(folder: Path) -> list[Row]:
    """Reads the rows of a folder's table, none if there is no table.

    Raises:
        ValueError: If it has no columns ``case`` and ``class``: such a file must not be replaced.
    """
    rows = read_rows(folder / TABLE, COLUMNS[:2])
    return [{RENAMED.get(column, column): cell for column, cell in row.items() if column} for row in rows]


def collect_volumes(folder: str | Path) -> list[Row]:
    """Writes ``volumes.csv`` from all records of a folder, sorted by case.

    Version 0.6 wrote no records: rows without a record stay if their prediction exists and no process works on it.
    Unknown columns stay beside rows that did not change. Beside it lie the tables of the labels' colours
    (:py:func:`rare_unet_networks.data.colour_tables.write_colour_tables`) and the files of BIDS.

    Columns: case, class, voxels and mm3 on the scan's own grid, mm3_fine (on the level 0 grid, where there is a
    prediction on it), spacing (mm, of the file's own axes), level, seconds (resampling and network), grid of the label
    map, side, asymmetry (of a whole head, in the row of both sides: left minus right in percent of their mean), and
    the reasons to review the prediction. Of two records of a case, on two grids, the newer one counts.

    Args:
        folder: folder of predictions.

    Returns:
        the rows.

    Raises:
        ValueError: If the folder does not exist, or its table has no columns ``case`` and ``class``.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"output_dir must be a folder of predictions, {folder} does not exist.")
    claims, claim = Claims(), folder / f".{TABLE}.claim"
    claims.wait(claim)  # so that the last of several processes reads the records of all
    try:
        # The claims first: a process that removes the row of a failed case releases its claim afterwards.
        claimed = {path for path in folder.rglob(".*.claim")}
        before = check_volumes(folder)
        records = read_records(folder)
        rows_by_case = {record["case"]: volume_rows(record) for record in records}
        for case in dict.fromkeys(row["case"] for row in before):
            if case not in rows_by_case and _is_kept(folder, case, claimed):
                rows_by_case[case] = [row for row in before if row["case"] == case]
        rows = [row for case in sorted(rows_by_case) for row in rows_by_case[case]]
        columns = [*COLUMNS, *dict.fromkeys(column for row in before for column in row if column not in COLUMNS)]
        rows = _with_other_columns(rows, before, columns)
        write_rows(folder / TABLE, columns, rows)
        write_bids_files(folder, records)
        write_colour_tables(folder, records)
    finally:
        claims.release_all()
    logger.info(f"{folder / TABLE} has the volumes of {len(rows_by_case)} case(s)")
    return rows


def _is_kept(folder: Path, case: str, claimed: set[Path]) -> bool:
    """Whether a row without a record describes a prediction that still exists and is not being replaced."""
    paths = [prediction_path(case, grid, folder) for grid in POSTFIXES] + [folder / f"{case}_full_seg.nii.gz"]
    predictions = [path for path in paths if path.is_file()]
    return bool(predictions) and not any(claim_path(path) in claimed for path in predictions)


def _with_other_columns(rows: Sequence[Row], before: Sequence[Row], columns: Sequence[str]) -> list[Row]:
    """Adds the unknown columns of the earlier table to rows that did not change."""
    before_by_key = {(row["case"], row["class"]): row for row in before}
    complete = []
    for row in map(formatted, rows):
        old = before_by_key.get((row["case"], row["class"]), {})
        is_same = all(old.get(column) == str(row.get(column, "")) for column in COLUMNS)
        complete.append({column: "" for column in columns} | (old if is_same else {}) | row)
    return complete
