"""BIDS data sets: which files are scans, and how a derivative is named and described.

The names follow the BIDS specification (https://bids-specification.readthedocs.io), "Imaging data type: anat" and
"Derivatives: Discrete segmentations".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..utils.files import read_json, replaced_as_a_whole

__all__ = ["bids_name", "bids_sidecar", "is_bids", "is_bids_scan", "split_bids_case", "write_bids_files"]

DESCRIPTION = "dataset_description.json"
ENTITIES = r"sub-[A-Za-z0-9]+(?:_[a-z]+-[A-Za-z0-9+]+)*"
FOLDER = r"sub-[A-Za-z0-9]+/(?:ses-[A-Za-z0-9]+/)?anat"
T1W = re.compile(rf"{FOLDER}/{ENTITIES}_T1w\.nii(\.gz)?")
# A case of a BIDS data set is the scan's path in it, without suffix. Other cases have no such folder.
CASE = re.compile(rf"(?P<folder>{FOLDER})/(?P<entities>{ENTITIES})(?P<suffix>_[A-Za-z0-9]+)?")
VERSION = "1.10.0"  # of BIDS
# Beside the derivatives; a validator must not look at them.
IGNORED = ("volumes.csv", "report.html", "figures", "figures/**", "*.log")


def is_bids(folder: Path) -> bool:
    """Whether a folder is the root of a BIDS data set: it says so, or has anatomical scans where BIDS has them."""
    description = folder / DESCRIPTION
    if description.is_file():
        content = read_json(description)
        if isinstance(content, Mapping) and "BIDSVersion" in content:
            return True
    return any(next(folder.glob(f"{pattern}/anat/sub-*_*.nii*"), None) for pattern in ("sub-*", "sub-*/ses-*"))


def is_bids_scan(path: Path, root: Path) -> bool:
    """Whether a file is a T1w scan of a BIDS data set."""
    return T1W.fullmatch(path.relative_to(root).as_posix()) is not None


def split_bids_case(case: str) -> tuple[str, str] | None:
    """Splits a case into folder and entities, without the scan's suffix; None if it is not of a BIDS data set."""
    match = CASE.fullmatch(case)
    return (match["folder"], match["entities"]) if match else None


def bids_name(case: str, grid: str) -> str | None:
    """Path of the derivative of a case in its data set; None if the case is not of a BIDS data set."""
    parts = split_bids_case(case)
    if parts is None:
        return None
    resolution = "_res-fine" if grid == "fine" else ""
    return f"{parts[0]}/{parts[1]}{resolution}_dseg.nii.gz"


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

    These are ``dataset_description.json``, unless there is one, ``dseg.tsv`` with the names of the labels, and
    ``.bidsignore``.

    Args:
        folder: folder of the derivatives.
        records: records of its cases.

    Raises:
        ValueError: if the cases have different classes, which one ``dseg.tsv`` cannot describe.
    """
    records = [record for record in records if split_bids_case(record["case"])]
    if not records:
        return
    classes = {tuple(record["volumes"]) for record in records}
    if len(classes) > 1:
        listed = " and ".join(", ".join(names) for names in sorted(classes))
        raise ValueError(f"{folder}: expected derivatives of the same classes, got {listed}: use a folder for each.")
    if not (folder / DESCRIPTION).exists():
        _write(folder / DESCRIPTION, json.dumps(_description(records), indent=1) + "\n")
    names = enumerate(("background", *classes.pop()))
    _write(folder / "dseg.tsv", "index\tname\n" + "".join(f"{index}\t{name}\n" for index, name in names))
    _write(folder / ".bidsignore", "".join(f"{name}\n" for name in IGNORED))


def _description(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    from .. import __version__  # imported here because the package imports this module first

    description: dict[str, Any] = {
        "Name": "Segmentations by RARE-UNet",
        "BIDSVersion": VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "rare-unet-networks", "Version": __version__}],
    }
    sources = sorted({_root(scan["file"]) for record in records for scan in record["scans"].values()} - {""})
    if sources:
        description["DatasetLinks"] = {"raw": Path(sources[0]).as_uri()}
        description["SourceDatasets"] = [{"URL": Path(source).as_uri()} for source in sources]
    return description


def _root(file: str) -> str:
    """Root of the data set of a scan, empty if its path is not one of BIDS."""
    match = re.fullmatch(rf"(?P<root>.+)/{FOLDER}/[^/]+", Path(file).as_posix())
    return match["root"] if match else ""


def _write(path: Path, text: str) -> None:
    with replaced_as_a_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
