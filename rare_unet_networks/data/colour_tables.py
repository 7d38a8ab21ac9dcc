"""Tables of the labels' names and colours for viewers: label descriptions of ITK-SNAP, colour tables of 3D Slicer.

Formats: http://www.itksnap.org, "Segmentation > Import Label Descriptions"; Slicer's developer guide, "Color table file
format (.txt, .ctbl)".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..utils.colours import label_rgb
from ..utils.files import write_text
from .record_files import is_refused, label_names

__all__ = ["COLOUR_TABLES", "write_colour_tables"]

COLOUR_TABLES = ("labels*_itksnap.txt", "labels*_slicer.ctbl")  # patterns of their names
ITK_SNAP = """\
################################################
# ITK-SnAP Label Description File
# File format:
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
################################################
    0     0    0    0        0  0  0    "Clear Label"
"""


def write_colour_tables(folder: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Writes the tables of a folder of predictions: ``labels_itksnap.txt`` and ``labels_slicer.ctbl``.

    The labels of whole heads are others than those of crops: theirs are ``labels_head_*``. If the names differ between
    records of a kind, those of the last record count. Cases that were refused have no labels.

    Args:
        folder: folder of the predictions.
        records: records of its cases, older first.
    """
    names_by_stem = {}
    for record in records:
        if not is_refused(record):
            names_by_stem["labels_head" if "labels" in record else "labels"] = label_names(record)
    for stem, names in names_by_stem.items():
        write_text(folder / f"{stem}_itksnap.txt", itk_snap_table(names))
        write_text(folder / f"{stem}_slicer.ctbl", slicer_table(names))


def itk_snap_table(names: Sequence[str]) -> str:
    """Label descriptions of ITK-SNAP: index, red, green, blue, opacity, visible, in 3-D, and the name in quotes."""
    lines = []
    for label, name in enumerate(names, start=1):
        red, green, blue = label_rgb(label)
        quoted = name.replace('"', "'")
        lines.append(f'{label:5} {red:5} {green:4} {blue:4}        1  1  1    "{quoted}"\n')
    return ITK_SNAP + "".join(lines)


def slicer_table(names: Sequence[str]) -> str:
    """Colour table of 3D Slicer: index, name without spaces, red, green, blue and opacity (0 to 255)."""
    lines = [f"# Color table file\n# {len(names) + 1} values\n0 background 0 0 0 0\n"]
    for label, name in enumerate(names, start=1):
        red, green, blue = label_rgb(label)
        lines.append(f"{label} {'_'.join(name.split())} {red} {green} {blue} 255\n")
    return "".join(lines)
