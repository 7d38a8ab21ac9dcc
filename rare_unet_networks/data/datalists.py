"""Lists of cases: scans to segment, and cases at several levels."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..acquisitions import Acquisition

__all__ = ["answer_postfix", "case_id", "expand_acquisitions", "expand_levels", "input_datalist"]

logger = logging.getLogger(__name__)
SUFFIXES = (".nii.gz", ".nii")
POSTFIXES = {"scan": "seg", "fine": "fine_seg"}
LABEL_ENDS = ("_seg", "-seg")  # of earlier answers, and of BraTS 2023's labels
FAILURE = "failure"  # key of an item that cannot be used; its value says why


def case_id(path: str | Path) -> str:
    """File name without folder and NIfTI suffix."""
    name = Path(path).name
    return next((name[: -len(s)] for s in SUFFIXES if name.lower().endswith(s)), name)


def answer_postfix(grid: str) -> str:
    """What the names of the answers' files on the grid asked for end with: ``<case>_<postfix>.nii.gz``.

    Args:
        grid: ``"scan"`` or ``"fine"``.

    Raises:
        ValueError: on another name.
    """
    if grid not in POSTFIXES:
        raise ValueError(f"grid must be one of {tuple(POSTFIXES)}, got {grid!r}.")
    return POSTFIXES[grid]


def answer_name(case: str, grid: str) -> str:
    """File name of a case's answer, as ``SaveImaged`` writes it with :py:func:`answer_postfix`."""
    return f"{case}_{answer_postfix(grid)}.nii.gz"


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


def find_niftis(source: Path, recursive: bool = False) -> list[Path]:
    """The file itself, or the scans of a folder, without earlier answers and labels (``*_seg``, ``*-seg``).

    Raises:
        ValueError: when the path does not exist or holds no NIfTI file.
    """
    if not source.exists():
        raise ValueError(f"input must be a NIfTI file or a folder of them, {source} does not exist.")
    files = [source]
    if source.is_dir():
        files = [p for p in list_niftis(source, recursive) if not case_id(p).endswith(LABEL_ENDS)]
    if not files:
        raise ValueError(f"input must hold NIfTI files (*.nii, *.nii.gz), {source} has none.")
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


def refuse_same_answers(items: Sequence[dict], grid: str) -> None:
    """Marks usable items whose ``case`` is another's, too: the answer of one would overwrite that of the other."""
    usable = [item for item in items if FAILURE not in item]
    names = [answer_name(item["case"], grid) for item in usable]
    counts = Counter(names)
    for item, name in zip(usable, names):
        if counts[name] > 1:
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
    refuse_same_answers(items, grid)
    logger.info(f"{len(items)} scan(s) in {source}")
    return items
