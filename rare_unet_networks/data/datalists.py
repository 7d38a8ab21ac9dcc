"""Lists of cases: scans to segment, and cases at several levels."""

from __future__ import annotations

import json
import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..acquisitions import Acquisition
from ..utils.errors import one_line
from .files import SUFFIXES, suffix_of

__all__ = ["case_id", "expand_acquisitions", "expand_levels", "input_datalist", "prediction_path"]

logger = logging.getLogger(__name__)
POSTFIXES = {"scan": "seg", "fine": "fine_seg"}
LABEL_ENDS = ("_seg", "-seg")  # of earlier answers, and of BraTS 2023's labels
FAILURE = "failure"  # key of an item that cannot be used; its value says why
NAMED = 50  # files left out of a folder that are named
# Formats of scans, or of arrays, that no reader is declared for.
UNREAD = (".mgz", ".mgh", ".nrrd", ".nhdr", ".mha", ".mhd", ".img", ".hdr", ".dcm", ".ima", ".mnc")
UNREAD += (".npy", ".npz", ".pkl", ".pt", ".h5", ".gz", ".zip", ".bz2", ".zst")
# Characters that end a line of a log, change its colours or hide what follows, and bytes that are no UTF-8.
UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")


def case_id(path: str | Path) -> str:
    """File name without folder and NIfTI suffix."""
    name = Path(path).name
    return next((name[: -len(s)] for s in SUFFIXES if name.lower().endswith(s)), name)


def prediction_path(case: str, grid: str, folder: str | Path) -> Path:
    """The file of a case's prediction, for those who write it, record it or look for it.

    Args:
        case: the case, see :py:func:`case_id`.
        grid: ``"scan"`` or ``"fine"``.
        folder: folder of the predictions.

    Raises:
        ValueError: on another grid.
    """
    if grid not in POSTFIXES:
        raise ValueError(f"grid must be one of {tuple(POSTFIXES)}, got {grid!r}.")
    return Path(folder) / f"{case}_{POSTFIXES[grid]}.nii.gz"


def read_json(path: Path) -> Any:
    """
    Raises:
        ValueError: naming the file, when it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of the JSON, or of the characters
        raise ValueError(f"{path} must be a JSON file: {error}") from None


def list_niftis(folder: Path, recursive: bool = False) -> list[Path]:
    """NIfTI files of a folder, without hidden ones (the Decathlon's archives hold ``._`` files)."""
    files = folder.rglob("*") if recursive else folder.iterdir()
    return sorted(p for p in files if p.name.lower().endswith(SUFFIXES) and not p.name.startswith("."))


def name_fault(text: str) -> str | None:
    """Why a path or a case's name cannot be written into logs and tables; None where it can."""
    if any(unicodedata.category(character) in UNPRINTABLE for character in text):
        return "the name holds control characters, or bytes that are not UTF-8: rename the file"
    return None


def _listed_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(map(one_line, names[:NAMED])) + more


def _name_left_out(source: Path, files: Sequence[Path], recursive: bool) -> str:
    """Logs which files of a folder are left out, and returns what is there instead of scans."""
    taken, folder = set(files), one_line(str(source))
    rest = sorted(p for p in (source.rglob("*") if recursive else source.iterdir()) if p not in taken)
    unread = [str(p.relative_to(source)) for p in rest if suffix_of(p) in UNREAD]
    results = [str(p.relative_to(source)) for p in rest if suffix_of(p) in SUFFIXES]
    others = [str(p.relative_to(source)) for p in rest if suffix_of(p) not in (*UNREAD, *SUFFIXES) and p.is_file()]
    if unread:
        logger.warning(
            f"{folder}: no reader is declared for the formats of {_listed_names(unread)}: left out "
            f"({', '.join(SUFFIXES)} are read)"
        )
    if results:
        logger.info(f"{folder}: earlier answers, labels and hidden files are left out: {_listed_names(results)}")
    if others:
        logger.info(f"{folder}: files that are no scans are left out: {_listed_names(others)}")
    return f", but {_listed_names(unread)}" if unread else ""


def find_niftis(source: Path, recursive: bool = False) -> list[Path]:
    """The file itself, or the scans of a folder, without earlier answers and labels (``*_seg``, ``*-seg``).

    Files of the folder that are left out are named in the log.

    Raises:
        ValueError: when the path does not exist or holds no NIfTI file.
    """
    if not source.exists():
        raise ValueError(f"input must be a NIfTI file or a folder of them, {one_line(str(source))} does not exist.")
    if not source.is_dir():
        return [source]
    files = [p for p in list_niftis(source, recursive) if not case_id(p).lower().endswith(LABEL_ENDS)]
    instead = _name_left_out(source, files, recursive)
    if not files:
        raise ValueError(f"input must hold NIfTI files (*.nii, *.nii.gz), {one_line(str(source))} has none{instead}.")
    return files


def _named(items: Sequence[dict]) -> list[dict]:
    return [item if "case" in item else {**item, "case": case_id(item["image"])} for item in items]


def expand_levels(items: Sequence[dict], levels: Sequence[int]) -> list[dict]:
    """Every item once per level, with the level under ``level``; without ``case`` it is named by its image's file."""
    return [{**item, "level": level} for item in _named(items) for level in levels]


def expand_acquisitions(items: Sequence[dict], acquisitions: Sequence[Acquisition]) -> list[dict]:
    """Every item once per acquisition, under ``acquisition``, with its ``spacing`` and ``profile`` as tables name them.

    Without ``case`` an item is named by its image's file.
    """
    return [
        {**item, "acquisition": a, "spacing": a.spacing_name, "profile": a.profile}
        for item in _named(items)
        for a in acquisitions
    ]


def refuse_names(items: Sequence[dict]) -> None:
    """Marks items whose files or case have names that logs and tables cannot hold."""
    for item in items:
        paths = item["image"].values() if isinstance(item["image"], dict) else [item["image"]]
        faults = [fault for text in (*paths, item["case"]) if (fault := name_fault(os.fspath(text)))]
        if faults:
            item[FAILURE] = faults[0]


def refuse_same_answers(items: Sequence[dict], grid: str) -> None:
    """Marks usable items whose ``case`` is another's, too: the answer of one would overwrite that of the other.

    Some file systems do not tell capitals from small letters.
    """
    usable = [item for item in items if FAILURE not in item]
    names = [prediction_path(item["case"], grid, "").name for item in usable]
    counts = Counter(name.lower() for name in names)
    for item, name in zip(usable, names):
        if counts[name.lower()] > 1:
            item[FAILURE] = f"another scan would write {name} as well"


def input_datalist(path: str, grid: str = "scan") -> list[dict[str, str]]:
    """Scans to segment: one NIfTI file or all of a folder, without its subfolders and earlier answers (``*_seg``).

    Args:
        path: a file or a folder. A file of another kind is taken as well: it fails by itself, with its reason.
        grid: grid of the answers, ``"scan"`` or ``"fine"``, which their names tell.

    Returns:
        items with ``image`` (path) and ``case``; of files that would write the same answer, with the reason under
        ``FAILURE``, see :py:class:`rare_unet_networks.data.FaultTolerantDataset`.

    Raises:
        ValueError: when the path does not exist or holds no NIfTI file, or ``grid`` is another grid.
    """
    source = Path(str(path))
    files = find_niftis(source)
    items = [{"image": str(p), "case": case_id(p)} for p in files]
    refuse_names(items)
    refuse_same_answers(items, grid)
    logger.info(f"{len(items)} scan(s) in {one_line(str(source))}")
    return items
