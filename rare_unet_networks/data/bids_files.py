"""Files that describe BIDS derivatives: sidecars, label tables, and the description of the data set."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..utils.files import write_text
from .bids import DESCRIPTION, bids_name, bids_root, split_bids_case
from .colour_tables import COLOUR_TABLES
from .record_files import is_refused, label_names

__all__ = ["bids_sidecar", "write_bids_files"]

VERSION = "1.10.0"  # of BIDS
README = """Label maps of MRI scans, made by RARE-UNet (the Python package rare-unet-networks).

*_dseg.nii.gz: label map of a scan. The names of its labels are in dseg.tsv, or in a table beside it.
*_dseg.json: what it was made of, volumes of the classes (mm3), and reasons to review it.
volumes.csv and report.html: all scans. They are no part of BIDS (.bidsignore).

Research software, not a medical device.
"""
# Beside the derivatives; a validator must not look at them.
IGNORED = ("volumes.csv", "report.html", "figures", "figures/**", "*.log", *COLOUR_TABLES)


def bids_sidecar(case: str, grid: str, files: Sequence[str]) -> dict[str, Any]:
    """BIDS entries of the record of a case, which is the sidecar of its derivative; none for other cases.

    Args:
        case: the case.
        grid: grid of the prediction.
        files: the files of the scan.
    """
    parts = split_bids_case(case)
    if parts is None:
        return {}
    entries: dict[str, Any] = {
        "Description": "Segmentation by RARE-UNet, with the labels of dseg.tsv",
        "Sources": [f"bids:raw:{parts[0]}/{Path(file).name}" for file in files],
        "SpatialReference": "orig",
        "Manual": False,
    }
    if grid == "fine":
        entries["Resolution"] = {"fine": "Grid of the network's full resolution, over the extent of the scan"}
    return entries


def write_bids_files(folder: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Writes the files that describe a data set of derivatives, if a record is of a BIDS data set.

    These are ``dataset_description.json`` and ``README.md``, unless there is one, ``.bidsignore``, and ``dseg.tsv``
    with the names of the labels. If the labels differ between the cases, each has its table beside it instead.

    Args:
        folder: folder of the derivatives.
        records: records of its cases.
    """
    records = [record for record in records if split_bids_case(record["case"]) and not is_refused(record)]
    if not records:
        return
    if not (folder / DESCRIPTION).exists():
        write_text(folder / DESCRIPTION, json.dumps(_description(records), indent=1) + "\n")
    if not any(folder.glob("README*")):
        write_text(folder / "README.md", README)
    tables = {record["case"]: _label_table(label_names(record)) for record in records}
    common = set(tables.values())
    if len(common) == 1:
        write_text(folder / "dseg.tsv", common.pop())
    else:
        (folder / "dseg.tsv").unlink(missing_ok=True)
        for record in records:
            prediction = folder / bids_name(record["case"], record["grid"])
            write_text(prediction.with_name(prediction.name.replace(".nii.gz", ".tsv")), tables[record["case"]])
    write_text(folder / ".bidsignore", "".join(f"{name}\n" for name in IGNORED))


def _label_table(names: Sequence[str]) -> str:
    rows = "".join(f"{index}\t{name}\n" for index, name in enumerate(("background", *names)))
    return f"index\tname\n{rows}"


def _description(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    from .. import __version__  # imported here because the package imports this module first

    description: dict[str, Any] = {
        "Name": "Segmentations by RARE-UNet",
        "BIDSVersion": VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "rare-unet-networks", "Version": __version__}],
    }
    sources = sorted({bids_root(scan["file"]) for record in records for scan in record["scans"].values()} - {""})
    if sources:
        description["DatasetLinks"] = {"raw": Path(sources[0]).as_uri()}
        description["SourceDatasets"] = [{"URL": Path(source).as_uri()} for source in sources]
    return description
