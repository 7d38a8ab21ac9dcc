"""BIDS data sets: which files are scans, and how a derivative is named and described.

The names follow the BIDS specification (https://bids-specification.readthedocs.io), "Imaging data type: anat" and
"Derivatives: Discrete segmentations".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ..utils.files import read_json

__all__ = ["DESCRIPTION", "bids_name", "bids_root", "is_bids", "is_bids_scan", "split_bids_case"]

DESCRIPTION = "dataset_description.json"
ENTITIES = r"sub-[A-Za-z0-9]+(?:_[a-z]+-[A-Za-z0-9+]+)*"
FOLDER = r"sub-[A-Za-z0-9]+/(?:ses-[A-Za-z0-9]+/)?anat"
T1W = re.compile(rf"{FOLDER}/{ENTITIES}_T1w\.nii(\.gz)?")
# A case of a BIDS data set is the scan's path in it, without suffix. Other cases have no such folder.
CASE = re.compile(rf"(?P<folder>{FOLDER})/(?P<entities>{ENTITIES})(?P<suffix>_[A-Za-z0-9]+)?")


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


def bids_root(file: str) -> str:
    """Root of the data set of a scan, empty if its path is not one of BIDS."""
    match = re.fullmatch(rf"(?P<root>.+)/{FOLDER}/[^/]+", Path(file).as_posix())
    return match["root"] if match else ""
