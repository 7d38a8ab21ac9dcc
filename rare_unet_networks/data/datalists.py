"""Lists of cases: scans to segment, and cases at several levels or acquisitions."""

from __future__ import annotations

import hashlib
import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..utils.errors import one_line
from .acquisitions import Acquisition
from .bids import bids_name
from .dicom import DicomSeries
from .files import SCAN_SUFFIXES, SUFFIXES
from .folders import Folder, find_scans, series_name, strip_suffix

__all__ = ["case_id", "expand_acquisitions", "expand_levels", "input_datalist", "prediction_path"]

logger = logging.getLogger(__name__)
POSTFIXES = {"scan": "seg", "fine": "fine_seg"}
FAILURE = "failure"  # key of an item that cannot be used; its value says why
REFUSED = "refused"  # further key if it could be segmented, but should not be: JSON text of reason and spacing
# Bytes of a case's name; file systems allow 255 for the name of a file, of which a claim's suffixes need up to 49.
MAX_CASE = 200
# Unicode categories of characters that break a log line, change its colours or hide text, and of invalid UTF-8.
UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")


def case_id(path: str | Path) -> str:
    """Returns the file name without folder and the suffix of a scan."""
    return strip_suffix(Path(path).name)


def prediction_path(case: str, grid: str, folder: str | Path) -> Path:
    """Returns the file of a case's prediction. Whoever writes, records or looks for it uses this function.

    It is ``<case>_seg.nii.gz``, in the subfolders that are part of the case; for a BIDS data set
    ``<entities>_dseg.nii.gz``.

    Args:
        case: the case, see :py:func:`case_id` and :py:func:`input_datalist`.
        grid: ``"scan"`` or ``"fine"``.
        folder: folder of the predictions.

    Raises:
        ValueError: If ``grid`` is another word.
    """
    if grid not in POSTFIXES:
        raise ValueError(f"grid must be one of {tuple(POSTFIXES)}, got {grid!r}.")
    return Path(folder) / (bids_name(case, grid) or f"{case}_{POSTFIXES[grid]}.nii.gz")


def files_of(entry: Any) -> list[str]:
    """Returns the files of an item's entry: a path, a list of them (a DICOM series), or either by modality."""
    if isinstance(entry, Mapping):
        return [path for part in entry.values() for path in files_of(part)]
    return [str(path) for path in entry] if isinstance(entry, (list, tuple)) else [str(entry)]


def place_of(entry: Any) -> str:
    """Returns the path of an item's entry for messages: the file, or the folder of a DICOM series."""
    if isinstance(entry, (list, tuple)):
        return str(Path(entry[0]).parent) if entry else ""
    return str(entry)


def list_niftis(folder: Path, recursive: bool = False) -> list[Path]:
    """Lists the NIfTI files of a folder, without hidden ones (the Decathlon's archives hold ``._`` files)."""
    files = folder.rglob("*") if recursive else folder.iterdir()
    return sorted(p for p in files if p.name.lower().endswith(SUFFIXES) and not p.name.startswith("."))


def name_fault(text: str) -> str | None:
    """Returns why a path or case name cannot be written to logs and tables, or None if it can."""
    if any(unicodedata.category(character) in UNPRINTABLE for character in text):
        return "the name holds control characters, or bytes that are not UTF-8: rename the file"
    return None


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
        for text in (*files_of(item["image"]), item["case"]):
            fault = name_fault(os.fspath(text))
            if fault:
                item[FAILURE] = fault
        size = max(len(os.fsencode(part)) for part in item["case"].split("/"))
        if FAILURE not in item and size > MAX_CASE:
            item[FAILURE] = f"the name of a case must have at most {MAX_CASE} bytes, got {size}: rename the file"
            digest = hashlib.sha256(os.fsencode(item["case"])).hexdigest()
            item["case"] = f"{item['case'][:40]}-{digest[:12]}"  # short enough for a claim


def refuse_shared_paths(items: Sequence[dict], grid: str) -> None:
    """Marks usable items that would write the same prediction file as failures.

    Names are compared without case, because some file systems ignore it.
    """
    usable = [item for item in items if FAILURE not in item]
    names = [prediction_path(item["case"], grid, "").as_posix() for item in usable]
    counts = Counter(name.lower() for name in names)
    for item, name in zip(usable, names):
        if counts[name.lower()] > 1:
            item[FAILURE] = f"another scan would write {name} as well"


def existing_source(path: str) -> Path:
    """Returns the path of ``input``.

    Raises:
        ValueError: If it is empty or does not exist.
    """
    if not str(path).strip():  # as a path it would be the current folder
        raise ValueError("input must be a scan or a folder of scans, got an empty path.")
    source = Path(str(path))
    if not source.exists():
        raise ValueError(f"input must be a scan or a folder of scans, {one_line(str(source))} does not exist.")
    return source


def refuse_empty(found: Folder) -> None:
    """Raises if a folder has no scan; names what was left out.

    Raises:
        ValueError: If there is none.
    """
    if not found.scans and not found.series:
        left_out = [f"{', '.join(names[:3])}{', …' if len(names) > 3 else ''}" for names in found.left_out.values()]
        instead = f", but {'; '.join(map(one_line, left_out))}" if left_out else ""
        raise ValueError(
            f"input must hold scans ({', '.join(f'*{s}' for s in SCAN_SUFFIXES)}, DICOM), "
            f"{one_line(str(found.root))} has none that can be used{instead}."
        )


def _relative_case(path: Path, root: Path) -> str:
    return (path.parent.relative_to(root) / case_id(path)).as_posix()


def series_cases(found: Folder, series: Sequence[DicomSeries]) -> list[str]:
    """Names the cases of DICOM series by their folder, and by their number if the folder holds several series."""
    cases: list[str] = []
    for one in series:
        place = one.folder.relative_to(found.root)
        case = place.as_posix() if place.parts else found.root.resolve().name
        if found.series_count[one.folder] > 1:
            case += f"/series{one.number}" if one.number else f"/{Path(one.files[0]).stem}"
        cases.append(case)
    return [f"{case}-{cases[:i].count(case) + 1}" if case in cases[:i] else case for i, case in enumerate(cases)]


def input_datalist(path: str, grid: str = "scan", contrast: str | None = "T1") -> list[dict[str, Any]]:
    """Lists scans to segment: one file, all scans of a folder and its subfolders, or a BIDS data set.

    Earlier predictions and labels (``*_seg``, ``*-seg``, ``*_dseg``) are no scans. The log names what is left out.

    Args:
        path: a file or a folder. A file of another format is listed too; it fails later, with its reason.
        grid: grid of the predictions, ``"scan"`` or ``"fine"``; it is part of their names.
        contrast: beginning of the contrast that a DICOM series must have, see
            :py:func:`rare_unet_networks.data.contrasts.contrast_of`; None takes all.

    Returns:
        items with ``image``, a path or the files of a DICOM series, and ``case``, with the subfolders; files that would
        write the same prediction have the reason under ``FAILURE``, see
        :py:class:`rare_unet_networks.data.FaultTolerantDataset`.

    Raises:
        ImportError: If the folder holds DICOM files only and pydicom is not installed.
        ValueError: If the path does not exist or contains no scan, or ``grid`` is unknown.
    """
    source = existing_source(path)
    if not source.is_dir():
        items: list[dict[str, Any]] = [{"image": str(source), "case": case_id(source)}]
    else:
        found = find_scans(source, bids_t1w=True)
        found.series = _of_contrast(found, contrast)
        found.log()
        refuse_empty(found)
        items = [{"image": str(p), "case": _relative_case(p, source)} for p in found.scans]
        cases = series_cases(found, found.series)
        items += [{"image": one.files, "case": case} for one, case in zip(found.series, cases)]
    refuse_names(items)
    refuse_shared_paths(items, grid)
    logger.info(f"{len(items)} scan(s) in {one_line(str(source))}")
    return items


def _of_contrast(found: Folder, contrast: str | None) -> list[DicomSeries]:
    """Returns the series of a contrast, and notes the others as left out."""
    chosen = []
    for one in found.series:
        name = one.contrast
        is_alone = name is None and len(found.series) == 1 and not found.scans
        if contrast is None or is_alone or (name or "").startswith(contrast):
            chosen.append(one)
            continue
        reason = f"it is {name}" if name else "neither its description nor its times say its contrast"
        found.leave_out(f"left out, because {reason}, not {contrast}", series_name(one, found.root))
    return chosen
