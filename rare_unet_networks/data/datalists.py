"""Lists of cases: scans to segment, and cases at several levels or acquisitions."""

from __future__ import annotations

import hashlib
import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..utils.errors import one_line
from .acquisitions import Acquisition
from .files import SUFFIXES, suffix_of

__all__ = ["case_id", "expand_acquisitions", "expand_levels", "input_datalist", "prediction_path"]

logger = logging.getLogger(__name__)
POSTFIXES = {"scan": "seg", "fine": "fine_seg"}
LABEL_ENDS = ("_seg", "-seg")  # of earlier predictions, and of BraTS 2023's labels
FAILURE = "failure"  # key of an item that cannot be used; its value says why
# Bytes of a case's name; file systems allow 255 for the name of a file, of which a claim's suffixes need up to 49.
MAX_CASE = 200
NAMED = 50  # at most so many ignored files are named in the log
# Formats of scans or arrays that no reader here supports.
UNREAD = (".mgz", ".mgh", ".nrrd", ".nhdr", ".mha", ".mhd", ".img", ".hdr", ".dcm", ".ima", ".mnc")
UNREAD += (".npy", ".npz", ".pkl", ".pt", ".h5", ".gz", ".zip", ".bz2", ".zst")
# Unicode categories of characters that break a log line, change its colours or hide text, and of invalid UTF-8.
UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")


def case_id(path: str | Path) -> str:
    """Returns the file name without folder and NIfTI suffix."""
    name = Path(path).name
    return next((name[: -len(s)] for s in SUFFIXES if name.lower().endswith(s)), name)


def prediction_path(case: str, grid: str, folder: str | Path) -> Path:
    """Returns the file of a case's prediction. Whoever writes, records or looks for it uses this function.

    Args:
        case: the case, see :py:func:`case_id`.
        grid: ``"scan"`` or ``"fine"``.
        folder: folder of the predictions.

    Raises:
        ValueError: If ``grid`` is another word.
    """
    if grid not in POSTFIXES:
        raise ValueError(f"grid must be one of {tuple(POSTFIXES)}, got {grid!r}.")
    return Path(folder) / f"{case}_{POSTFIXES[grid]}.nii.gz"


def list_niftis(folder: Path, recursive: bool = False) -> list[Path]:
    """Lists the NIfTI files of a folder, without hidden ones (the Decathlon's archives hold ``._`` files)."""
    files = folder.rglob("*") if recursive else folder.iterdir()
    return sorted(p for p in files if p.name.lower().endswith(SUFFIXES) and not p.name.startswith("."))


def name_fault(text: str) -> str | None:
    """Returns why a path or case name cannot be written to logs and tables, or None if it can."""
    if any(unicodedata.category(character) in UNPRINTABLE for character in text):
        return "the name holds control characters, or bytes that are not UTF-8: rename the file"
    return None


def _listed_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(map(one_line, names[:NAMED])) + more


def _log_ignored_files(source: Path, files: Sequence[Path], recursive: bool) -> str:
    """Logs which files of a folder are ignored. Returns the end of an error message with those of other formats."""
    scans, folder = set(files), one_line(str(source))
    unread, results, others = [], [], []
    for path in sorted(source.rglob("*") if recursive else source.iterdir()):
        if path in scans:
            continue
        name = str(path.relative_to(source))
        if suffix_of(path) in UNREAD:
            unread.append(name)
        elif suffix_of(path) in SUFFIXES:
            results.append(name)
        elif path.is_file():
            others.append(name)
    if unread:
        logger.warning(
            f"{folder}: no reader is declared for the formats of {_listed_names(unread)}: left out "
            f"({', '.join(SUFFIXES)} are read)"
        )
    if results:
        logger.info(f"{folder}: earlier predictions, labels and hidden files are left out: {_listed_names(results)}")
    if others:
        logger.info(f"{folder}: files that are no scans are left out: {_listed_names(others)}")
    return f", but {_listed_names(unread)}" if unread else ""


def find_niftis(source: Path, recursive: bool = False) -> list[Path]:
    """Lists a file itself, or the scans of a folder, without earlier predictions and labels (``*_seg``, ``*-seg``).

    The log names the files of the folder that are ignored.

    Raises:
        ValueError: If the path does not exist or contains no NIfTI file.
    """
    if not source.exists():
        raise ValueError(f"input must be a NIfTI file or a folder of them, {one_line(str(source))} does not exist.")
    if not source.is_dir():
        return [source]
    files = [p for p in list_niftis(source, recursive) if not case_id(p).lower().endswith(LABEL_ENDS)]
    instead = _log_ignored_files(source, files, recursive)
    if not files:
        raise ValueError(f"input must hold NIfTI files (*.nii, *.nii.gz), {one_line(str(source))} has none{instead}.")
    return files


def _with_case_ids(items: Sequence[dict]) -> list[dict]:
    return [item if "case" in item else {**item, "case": case_id(item["image"])} for item in items]


def expand_levels(items: Sequence[dict], levels: Sequence[int]) -> list[dict]:
    """Repeats every item once per level, with the level under ``level``.

    An item without ``case`` gets the name of its image's file.
    """
    return [{**item, "level": level} for item in _with_case_ids(items) for level in levels]


def expand_acquisitions(items: Sequence[dict], acquisitions: Sequence[Acquisition]) -> list[dict]:
    """Repeats every item once per acquisition, with ``acquisition`` and its ``spacing`` and ``profile`` as in tables.

    An item without ``case`` gets the name of its image's file.
    """
    return [
        {**item, "acquisition": acquisition, "spacing": acquisition.spacing_name, "profile": acquisition.profile}
        for item in _with_case_ids(items)
        for acquisition in acquisitions
    ]


def refuse_names(items: Sequence[dict]) -> None:
    """Marks items as failures whose names cannot be written to logs and tables, or are too long for their files."""
    for item in items:
        paths = item["image"].values() if isinstance(item["image"], dict) else [item["image"]]
        for text in (*paths, item["case"]):
            fault = name_fault(os.fspath(text))
            if fault:
                item[FAILURE] = fault
        size = len(os.fsencode(item["case"]))
        if FAILURE not in item and size > MAX_CASE:
            item[FAILURE] = f"the name of a case must have at most {MAX_CASE} bytes, got {size}: rename the file"
            digest = hashlib.sha256(os.fsencode(item["case"])).hexdigest()
            item["case"] = f"{item['case'][:40]}-{digest[:12]}"  # short enough for a claim


def refuse_shared_paths(items: Sequence[dict], grid: str) -> None:
    """Marks usable items that would write the same prediction file as failures.

    Names are compared without case, because some file systems ignore it.
    """
    usable = [item for item in items if FAILURE not in item]
    names = [prediction_path(item["case"], grid, "").name for item in usable]
    counts = Counter(name.lower() for name in names)
    for item, name in zip(usable, names):
        if counts[name.lower()] > 1:
            item[FAILURE] = f"another scan would write {name} as well"


def input_datalist(path: str, grid: str = "scan") -> list[dict[str, str]]:
    """Lists scans to segment: one NIfTI file or all of a folder, without its subfolders and earlier predictions.

    Args:
        path: a file or a folder. A file of another format is listed too; it fails later, with its reason.
        grid: grid of the predictions, ``"scan"`` or ``"fine"``; it is part of their names.

    Returns:
        items with ``image`` (path) and ``case``; files that would write the same prediction have the reason under
        ``FAILURE``, see :py:class:`rare_unet_networks.data.FaultTolerantDataset`.

    Raises:
        ValueError: If the path does not exist or contains no NIfTI file, or ``grid`` is unknown.
    """
    source = Path(str(path))
    files = find_niftis(source)
    items = [{"image": str(p), "case": case_id(p)} for p in files]
    refuse_names(items)
    refuse_shared_paths(items, grid)
    logger.info(f"{len(items)} scan(s) in {one_line(str(source))}")
    return items
