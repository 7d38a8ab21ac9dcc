"""Finds the scans of a folder, and says in the log what is left out and why."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..utils.errors import one_line
from .bids import is_bids, is_bids_scan
from .dicom import DicomSeries, find_series, is_dicom_file
from .files import DICOM_SUFFIXES, SCAN_SUFFIXES, suffix_of

__all__ = ["Folder", "find_scans", "strip_suffix"]

logger = logging.getLogger(__name__)
LABEL_ENDS = ("_seg", "-seg", "_dseg")  # of earlier predictions, and of BraTS 2023's labels
NAMED = 50  # at most so many files are named in a line of the log
# Formats of scans or arrays that no reader here supports.
UNREAD = (".nhdr", ".mhd", ".img", ".hdr", ".mnc", ".npy", ".npz", ".pkl", ".pt", ".h5", ".gz", ".zip", ".bz2", ".zst")
# Names of files in a DICOM export that are no slices.
DICOM_EXTRAS = ("DICOMDIR",)


def strip_suffix(name: str) -> str:
    """File name without the suffix of a scan."""
    return next((name[: -len(s)] for s in SCAN_SUFFIXES if name.lower().endswith(s)), name)


@dataclass
class Folder:
    """What was found in a folder.

    Attributes:
        root: the folder.
        scans: files that hold a whole scan, sorted.
        series: DICOM series that are an MR volume.
        series_count: number of series in each of its subfolders, with those that are left out.
        is_bids: whether it is a BIDS data set.
        left_out: names of other files and series, by the reason.
    """

    root: Path
    scans: list[Path] = field(default_factory=list)
    series: list[DicomSeries] = field(default_factory=list)
    series_count: Counter[Path] = field(default_factory=Counter)
    is_bids: bool = False
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, reason: str, name: str | Path) -> None:
        """Notes that a file or series is not used."""
        self.left_out.setdefault(reason, []).append(str(name))

    def log(self) -> None:
        """Names in the log what is left out: a warning for each reason that a user may not expect."""
        for reason, names in self.left_out.items():
            level = logging.INFO if reason in EXPECTED else logging.WARNING
            logger.log(level, f"{one_line(str(self.root))}: {reason}: {listed(names)}")


UNREADABLE = "left out, because no reader is declared for these formats"
NO_FILES = "left out, because they are pipes, devices, broken links or links to folders"
RESULTS = "earlier predictions, labels and hidden files are left out"
NO_SCANS = "files that are no scans are left out"
NO_T1W = "left out, because a BIDS data set is read as sub-*/[ses-*/]anat/*_T1w.nii.gz"
EXPECTED = (RESULTS, NO_SCANS, NO_T1W)


def listed(names: Sequence[str]) -> str:
    """Names for a line of the log, the first fifty of many."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(map(one_line, names[:NAMED])) + more


def _walk(root: Path, fail: Callable[[OSError], None]) -> Iterator[Path]:
    """Yields all files of a folder and its subfolders, sorted, without those in hidden subfolders.

    A link to a folder, which may lead back to this one, is yielded itself. ``fail`` is called for a subfolder that
    cannot be opened.
    """
    for folder, subfolders, names in os.walk(root, onerror=fail):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        links = [name for name in subfolders if os.path.islink(os.path.join(folder, name))]
        yield from (Path(folder) / name for name in sorted([*names, *links]))


def find_scans(root: Path, bids_t1w: bool = False) -> Folder:
    """Finds the scans of a folder and its subfolders.

    Args:
        root: the folder.
        bids_t1w: whether only the T1w scans of a BIDS data set are scans.

    Returns:
        what was found; call its ``log``.

    Raises:
        ImportError: if there are DICOM files and nothing else, and pydicom is not installed.
    """
    found = Folder(root, is_bids=is_bids(root))
    slices = []

    def fail(error: OSError) -> None:
        found.leave_out("left out, because these folders cannot be opened", Path(error.filename).relative_to(root))

    for path in _walk(root, fail):
        name, suffix = path.relative_to(root), suffix_of(path)
        if suffix in SCAN_SUFFIXES:
            if path.name.startswith(".") or strip_suffix(path.name).lower().endswith(LABEL_ENDS):
                found.leave_out(RESULTS, name)
            elif found.is_bids and bids_t1w and not is_bids_scan(path, root):
                found.leave_out(NO_T1W, name)
            else:
                found.scans.append(path)
        elif path.name.startswith(".") or path.name in DICOM_EXTRAS:
            found.leave_out(NO_SCANS, name)
        elif not path.is_file():
            found.leave_out(NO_FILES, name)
        elif suffix in DICOM_SUFFIXES or (suffix not in UNREAD and is_dicom_file(path)):
            slices.append(path)
        else:
            found.leave_out(UNREADABLE if suffix in UNREAD else NO_SCANS, name)
    _add_series(found, slices)
    return found


def _add_series(found: Folder, slices: Sequence[Path]) -> None:
    try:
        series, damaged = find_series(slices)
    except ImportError as error:
        if not found.scans:
            raise
        found.leave_out(f"DICOM files are left out ({error})", f"{len(slices)} file(s)")
        return
    for path, reason in damaged.items():
        found.leave_out(f"left out, because it cannot be read ({reason})", Path(path).relative_to(found.root))
    for one in series:
        found.series_count[one.folder] += 1
        fault = one.fault()
        if fault:
            found.leave_out(f"left out, because {fault}", series_name(one, found.root))
        else:
            found.series.append(one)


def series_name(series: DicomSeries, root: Path) -> str:
    """Folder, number and description of a series, for the log."""
    number = f"series {series.number}" if series.number else "a series"
    description = f" ({series.description})" if series.description else ""
    return f"{series.folder.relative_to(root)}: {number}{description} of {len(series.files)} file(s)"
