"""``report.html``: one page without further files, with a table and a picture of every case of a folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Any

from ..data.record_files import is_refused, label_names, read_records
from ..data.volume_table import collect_volumes
from ..utils.claims import Claims
from ..utils.colours import label_colour
from ..utils.files import write_text
from .figures import figure_of
from .table import Cell, Column, columns_of, mean_of, review_of, route_of
from .viewer import INTERACTIVE, report_mode, viewer_data, viewer_part

__all__ = ["PAGE", "can_report", "collect", "write_report"]

logger = logging.getLogger(__name__)
PAGE = "report.html"
TEMPLATE = Path(__file__).with_name("page.html")


def can_report(report: bool | str, niivue_file: str | Path | None = None) -> bool:
    """Whether a report is asked for and can be drawn. Without matplotlib one line of the log says how to get it.

    Raises:
        ValueError: see :py:func:`rare_unet_networks.reports.viewer.report_mode`.
    """
    if report_mode(report, niivue_file) == "false":
        return False
    if find_spec("matplotlib") is None:
        logger.info(f"no {PAGE}: its pictures need matplotlib (pip install 'rare-unet-networks[report]')")
        return False
    return True


def write_report(
    folder: str | Path,
    report: bool | str = True,
    failures: Sequence[tuple[str, str]] = (),
    niivue_file: str | Path | None = None,
) -> Path | None:
    """Writes ``report.html`` of a folder of predictions from their records. Cases to review come first.

    Pictures that are missing, or older than their prediction, are drawn from the files that the records name.

    Args:
        folder: folder of the predictions.
        report: whether to write it; ``"interactive"`` with a viewer for each case.
        failures: scans that could not be segmented, as (file, reason).
        niivue_file: the program of the viewer.

    Returns:
        the page; None if there is no case, or no report is asked for or possible.

    Raises:
        ValueError: see :py:func:`rare_unet_networks.reports.viewer.report_mode`.
    """
    folder = Path(folder)
    if not can_report(report, niivue_file):
        return None
    program = niivue_file if report == INTERACTIVE else None
    records = read_records(folder)
    if not records and not failures:
        return None
    claims = Claims()
    claims.wait(folder / f".{PAGE}.claim")  # the last of several processes writes the cases of all
    try:
        records = read_records(folder)
        figures = {r["case"]: "" if is_refused(r) else figure_of(r, folder) for r in records}
        path = folder / PAGE
        write_text(path, _page(folder, records, figures, failures, program))
    finally:
        claims.release_all()
    logger.info(f"{path} shows {len(records)} case(s)")
    return path


def collect(folder: str | Path, report: bool | str = True, niivue_file: str | Path | None = None) -> None:
    """Makes ``volumes.csv`` and ``report.html`` of a folder from its records.

    Args:
        folder: folder of predictions.
        report: whether to write the report, see :py:func:`write_report`.
        niivue_file: the program of an interactive report.

    Raises:
        ValueError: see :py:func:`rare_unet_networks.data.collect_volumes` and :py:func:`write_report`.
    """
    collect_volumes(folder)
    write_report(folder, report, niivue_file=niivue_file)


def _page(
    folder: Path,
    records: Sequence[Mapping[str, Any]],
    figures: Mapping[str, str],
    failures: Sequence[tuple[str, str]],
    niivue_file: str | Path | None,
) -> str:
    # Python's sort is stable: cases of either kind stay sorted by their names.
    records = sorted(sorted(records, key=lambda r: r["case"]), key=lambda r: not review_of(r))
    columns = columns_of(records)
    flagged = sum(bool(review_of(record)) for record in records)
    versions = ", ".join(sorted({str(record.get("version", "")) for record in records} - {""}))
    words = [str(folder.absolute()), f"{datetime.now():%Y-%m-%d %H:%M}", f"RARE-UNet {versions}" if versions else ""]
    numbers = {"scans": len(records), "to review": flagged, **({"failed": len(failures)} if failures else {})}
    rows, cases = [], []
    for number, record in enumerate(records):
        rows.append(_table_row(f"case-{number}", record, columns))
        volume = viewer_data(record, folder) if niivue_file and not is_refused(record) else ""
        cases.append(_case(f"case-{number}", record, figures[record["case"]], columns, volume))
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title="Segmentation report",
        subtitle=escape(" · ".join(word for word in words if word)),
        figures="".join(f"<div><b>{count}</b>{name}</div>" for name, count in numbers.items()),
        failures=_failures(failures),
        key=_key(records),
        headings="".join(map(_heading, columns)),
        rows="\n".join(rows),
        cases="\n".join(cases),
        viewer=viewer_part(niivue_file) if niivue_file else "",
    )


def _failures(failures: Sequence[tuple[str, str]]) -> str:
    if not failures:
        return ""
    entries = "".join(f"<li><b>{escape(name)}</b>: {escape(reason)}</li>" for name, reason in failures)
    return f'<section class="flagged wrap"><span class="badge">not segmented</span><ul>{entries}</ul></section>'


def _key(records: Sequence[Mapping[str, Any]]) -> str:
    """Returns the colours of the classes, in the order of their indices; of crops and of heads where there are both."""
    keys = []
    for names in dict.fromkeys(tuple(label_names(record)) for record in records):
        for label, name in enumerate(names, start=1):
            style = f"border-color:{label_colour(label)}"
            keys.append(f'<span class="key"><i style="{style}"></i>{escape(_words(name))}</span>')
    return "".join(keys)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _heading(column: Column) -> str:
    number = ' class="number"' if column.is_number else ""
    return f'<th{number} title="{escape(column.hint)}"><button type="button">{escape(column.title)}</button></th>'


def _table_row(card: str, record: Mapping[str, Any], columns: Sequence[Column]) -> str:
    cells = []
    for column in columns:
        cell = column.cell(record)
        key = cell.text if cell.key is None else cell.key
        kind = ' class="number"' if column.is_number else ""
        cells.append(f'<td{kind} data-key="{escape(str(key))}">{_content(column, cell, card, record)}</td>')
    state = "flagged" if review_of(record) else "clear"
    return f'<tr class="{state}" data-card="{card}">{"".join(cells)}</tr>'


def _content(column: Column, cell: Cell, card: str, record: Mapping[str, Any]) -> str:
    if column.title == "scan":
        return f'<a href="#{card}">{escape(cell.text)}</a>'
    if column.title == "review":
        first, *others = review_of(record) or [""]
        text = f"{first} … and {len(others)} more" if others else first  # the card has all of them
        return f'{_badge(record)}<div class="reasons soft">{escape(text)}</div>'
    return escape(cell.text)


def _badge(record: Mapping[str, Any]) -> str:
    if is_refused(record):
        return '<span class="badge">not segmented</span>'
    return f'<span class="badge">{"review" if review_of(record) else "no remark"}</span>'


def _case(card: str, record: Mapping[str, Any], figure: str, columns: Sequence[Column], volume: str) -> str:
    """Returns the card of a case: its picture, reasons, volumes and origin, and what the viewer shows of it."""
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in review_of(record))
    facts = {"resolution": f"{columns[1].cell(record).text} mm", "route": route_of(record)}
    facts |= {column.title: column.cell(record).text for column in columns if column.title in ("asymmetry %", "doubt")}
    dice = record.get("expected_dice")
    if mean_of(dice) is not None:
        error = dice.get("error") if isinstance(dice, Mapping) else None
        facts["expected Dice"] = f"{mean_of(dice):.2f}" + (f" ± {error:.2f}" if isinstance(error, float) else "")
    if not is_refused(record):
        facts["time"] = f"{float(record['seconds']):.2f} s"
    for name, scan in (record.get("scans") or {}).items():
        facts["scan" if name == "image" else name] = Path(str(scan.get("file", ""))).name
    entries = "".join(f"<dt>{escape(_words(k))}</dt><dd>{escape(v)}</dd>" for k, v in facts.items() if v)
    state = "flagged" if reasons else "clear"
    button = ""
    if volume:
        button = '<button type="button" class="open">scroll through</button>'
        button += f'<script type="application/json" id="{card}-volume">{volume}</script>'
    return (
        f'<article class="case {state}" id="{card}"><header><h2>{escape(str(record["case"]))}</h2>{_badge(record)}'
        f"{button}</header><div>{figure or f'<p class=soft>{_without_picture(record)}</p>'}</div>"
        f"<div>{f'<ul>{reasons}</ul>' if reasons else ''}{_volumes(record)}<dl>{entries}</dl></div></article>"
    )


def _without_picture(record: Mapping[str, Any]) -> str:
    return "no label map was written" if is_refused(record) else "no picture, see the log"


def _volumes(record: Mapping[str, Any]) -> str:
    rows = []
    if is_refused(record):
        return ""
    for name, volume in record["volumes"].items():
        fine = volume.get("mm3_fine")
        cells = [volume["voxels"], f"{volume['mm3']:.0f}", "" if fine is None else f"{fine:.0f}"]
        numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
        rows.append(f"<tr><td>{escape(_words(name))}</td>{numbers}</tr>")
    heads = "".join(f'<th class="number">{h}</th>' for h in ("voxels", "mm³ on its grid", "mm³ at level 0"))
    return f"<table><thead><tr><th>class</th>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
