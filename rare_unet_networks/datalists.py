"""Lists of cases: a folder in the Medical Segmentation Decathlon's layout, or scans to segment."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

__all__ = ["at_levels", "case_name", "input_datalist", "msd_datalist"]

logger = logging.getLogger(__name__)
SUFFIXES = (".nii.gz", ".nii")
POSTFIX = "_seg"
LABEL_ENDS = (POSTFIX, "-seg")  # of earlier answers, and of BraTS 2023's labels
FEW = 5  # absent cases that are warned of, with their names
FAILURE = "failure"  # key of an item that cannot be used; its value says why


def case_name(path: str | Path) -> str:
    """File name without folder and NIfTI suffix."""
    name = Path(path).name
    return next((name[: -len(s)] for s in SUFFIXES if name.lower().endswith(s)), name)


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
        files = [p for p in list_niftis(source, recursive) if not case_name(p).endswith(LABEL_ENDS)]
    if not files:
        raise ValueError(f"input must hold NIfTI files (*.nii, *.nii.gz), {source} has none.")
    return files


def msd_datalist(dataset_dir: str, splits_file: str, split: str) -> list[dict[str, str]]:
    """Labelled cases of one split, from ``imagesTr/`` and ``labelsTr/``.

    Args:
        dataset_dir: folder in the Decathlon's layout.
        splits_file: JSON file that maps names of splits to lists of cases. A labelled case in none of its lists counts
            as ``test``.
        split: name of the split.

    Returns:
        items with ``image``, ``label`` (paths) and ``case``, of the cases that are present. A few absent ones are
        warned of.

    Raises:
        ValueError: when a folder is missing, the split is unknown, or none of its cases is present.
    """
    root = Path(str(dataset_dir))
    for folder in (root, root / "imagesTr", root / "labelsTr"):
        if not folder.is_dir():
            raise ValueError(f"dataset_dir must be a folder with imagesTr/ and labelsTr/, {folder} is missing.")
    splits: dict[str, list[str]] = json.loads(Path(splits_file).read_text())
    if split not in splits:
        raise ValueError(f"split must be one of {list(splits)}, got {split!r}.")
    listed = {case for cases in splits.values() for case in cases}
    images = {case_name(p): p for p in list_niftis(root / "imagesTr")}
    labels = {case_name(p): p for p in list_niftis(root / "labelsTr")}
    wanted = set(splits[split])
    if split == "test":
        wanted |= labels.keys() - listed
    cases = sorted(wanted & images.keys() & labels.keys())
    if not cases:
        raise ValueError(f"none of the {len(wanted)} cases of split {split!r} of {splits_file} is in {root}.")
    logger.info(f"split {split}: {len(cases)} of {len(wanted)} cases are in {root}")
    absent = sorted(wanted - set(cases))
    if absent:
        # A few are a slip in the list or a file gone astray; many mean that this is a part of the dataset.
        logger.log(
            logging.WARNING if len(absent) <= FEW else logging.INFO,
            f"split {split}: no image or no label of {', '.join(absent[:FEW])}{', …' if len(absent) > FEW else ''}",
        )
    return [{"image": str(images[c]), "label": str(labels[c]), "case": c} for c in cases]


def at_levels(items: Sequence[dict], levels: Sequence[int]) -> list[dict]:
    """Every item once per level, with the level under ``level``."""
    return [{**item, "level": level} for item in items for level in levels]


def refuse_same_answers(items: Sequence[dict]) -> None:
    """Marks usable items whose ``case`` is another's, too: the answer of one would overwrite that of the other."""
    usable = [item for item in items if FAILURE not in item]
    cases = Counter(item["case"] for item in usable)
    for item in usable:
        if cases[item["case"]] > 1:
            item[FAILURE] = f"another scan would write {item['case']}{POSTFIX}.nii.gz as well"


def input_datalist(path: str) -> list[dict[str, str]]:
    """Scans to segment: one NIfTI file or all of a folder, without its subfolders and earlier answers (``*_seg``).

    Args:
        path: a file or a folder. A file of another kind is taken as well: it fails by itself, with its reason.

    Returns:
        items with ``image`` (path) and ``case``; of files that would write the same answer, with the reason under
        ``FAILURE``, see :py:class:`rare_unet_networks.GuardedDataset`.

    Raises:
        ValueError: when the path does not exist or holds no NIfTI file.
    """
    source = Path(str(path))
    files = find_niftis(source)
    items = [{"image": str(p), "case": case_name(p)} for p in files]
    refuse_same_answers(items)
    logger.info(f"{len(items)} scan(s) in {source}")
    return items
