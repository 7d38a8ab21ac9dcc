"""Labelled datasets: folders in the Medical Segmentation Decathlon's layout or in nnU-Net's, and its splits."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..utils.errors import one_line
from ..utils.files import read_json
from .datalists import case_id, list_niftis, name_fault
from .files import SUFFIXES
from .modalities import modality_of

__all__ = ["labelled_datalist"]

logger = logging.getLogger(__name__)
FEW = 5  # up to so many absent cases are a warning
CHANNEL = re.compile(r"(.+)_(\d{4})")
SHORT = 120  # characters of a wrong value that a message shows
EXAMPLE = '{"channel_names": {"0": "T1"}, "labels": {"background": 0, "tumour": 1}, "file_ending": ".nii.gz"}'


def labelled_datalist(
    dataset_dir: str,
    splits_file: str,
    split: str,
    modalities: Mapping[str, str] | None = None,
    class_names: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Lists the labelled cases of one split, from ``imagesTr/`` and ``labelsTr/``.

    A dataset whose ``dataset.json`` has ``channel_names`` is nnU-Net's: it has a file ``CASE_0000.nii.gz`` per channel.
    The channel's name there gives its modality.

    Args:
        dataset_dir: folder in the Decathlon's layout or in nnU-Net's (version 2).
        splits_file: JSON file that maps names of splits to lists of cases. A labelled case in none of its lists counts
            as ``test``. Or nnU-Net's ``splits_final.json``: fold 0 is ``train`` and ``validation``, fold N
            ``fold_N_train`` and ``fold_N``.
        split: name of the split.
        modalities: pattern by modality, see :py:func:`~rare_unet_networks.data.modality_datalist`. Without it, a
            dataset of nnU-Net must have one channel. Only datasets of nnU-Net use this and the next argument.
        class_names: names of the classes above background, in order; compared with the names in ``dataset.json``.

    Returns:
        items with ``image`` (a path, or with modalities the paths by modality of a dataset of nnU-Net), ``label``
        (path) and ``case``, of the cases that are present. A warning names the absent ones if they are few.

    Raises:
        ValueError: If a folder is missing, the split is unknown or none of its cases is present, or if a dataset of
            nnU-Net has other channels or classes.
    """
    root = Path(str(dataset_dir))
    for folder in (root, root / "imagesTr", root / "labelsTr"):
        if not folder.is_dir():
            raise ValueError(f"dataset_dir must be a folder with imagesTr/ and labelsTr/, {folder} is missing.")
    splits = _splits(Path(splits_file))
    if split not in splits:
        raise ValueError(f"split must be one of {list(splits)}, got {split!r}.")
    listed = set().union(*splits.values())
    description = nnunet_description(root / "dataset.json")
    if description is None:
        images = {case_id(p): str(p) for p in _niftis(root / "imagesTr")}
    else:
        _check_classes(description, root / "dataset.json", class_names)
        images = _nnunet_images(root / "imagesTr", channel_modalities(description, root / "dataset.json", modalities))
    labels = {case_id(p): p for p in _niftis(root / "labelsTr")}
    wanted = set(splits[split])
    if split == "test":
        wanted |= labels.keys() - listed
    cases = sorted(wanted & images.keys() & labels.keys())
    if not cases:
        reason = _reason_for_none(wanted, images, description)
        raise ValueError(f"none of the {len(wanted)} cases of split {split!r} of {splits_file} is in {root}{reason}.")
    logger.info(f"split {split}: {len(cases)} of {len(wanted)} cases are in {root}")
    absent = sorted(wanted - set(cases))
    if absent:
        # A few absent cases are probably a mistake; many mean that the folder is a part of the dataset.
        logger.log(
            logging.WARNING if len(absent) <= FEW else logging.INFO,
            f"split {split}: no image or no label of {', '.join(absent[:FEW])}{', …' if len(absent) > FEW else ''}",
        )
    return [{"image": images[c], "label": str(labels[c]), "case": c} for c in cases]


def _niftis(folder: Path) -> list[Path]:
    """Lists the NIfTI files of a folder with valid names; raises if two are of one case."""
    paths, cases = [], {}
    for path in list_niftis(folder):
        if fault := name_fault(str(path)):
            logger.warning(f"{one_line(str(path))}: {fault}: left out")
            continue
        if (other := cases.setdefault(case_id(path), path)) != path:
            raise ValueError(f"{path} and {other.name} are of one case: remove one of them.")
        paths.append(path)
    return paths


def _reason_for_none(wanted: Collection[str], images: Mapping[str, Any], description: Mapping | None) -> str:
    """Returns the likely reason why a split has no case, for a message; empty if unknown."""
    if description is None and any(CHANNEL.fullmatch(case) for case in images):
        return ": images are named as nnU-Net's, whose dataset.json must have channel_names (version 2)"
    if unlabelled := sorted(case for case in wanted if case in images):
        return f": there is no label of {unlabelled[0]}"
    if suffixed := sorted(case for case in wanted if case.lower().endswith(SUFFIXES)):
        return f": cases must be named without suffix, got {suffixed[0]}"
    return ""


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _splits(path: Path) -> dict[str, list[str]]:
    """Reads the cases of each split."""
    content = read_json(path)
    if isinstance(content, Mapping) and content and all(map(_are_names, content.values())):
        return dict(content)
    folds = content if isinstance(content, list) else []
    are_folds = all(isinstance(f, Mapping) and _are_names(f.get("train")) and _are_names(f.get("val")) for f in folds)
    if not folds or not are_folds:
        raise ValueError(f"splits_file must map names to cases or be nnU-Net's list of folds, {path} is neither.")
    splits = {"train": folds[0]["train"], "validation": folds[0]["val"], "test": []}
    for i, fold in enumerate(folds):
        splits |= {f"fold_{i}_train": fold["train"], f"fold_{i}": fold["val"]}
    return splits


def nnunet_description(path: Path) -> dict[str, Any] | None:
    """Reads nnU-Net's ``dataset.json``; None if there is none or it is the Decathlon's."""
    description = read_json(path) if path.exists() else {}
    if not isinstance(description, Mapping):
        raise ValueError(f"{path} must be a JSON object such as {EXAMPLE}, got {_short(description)}.")
    if "channel_names" not in description:
        return None
    ending = description.get("file_ending")
    if ending not in SUFFIXES:
        raise ValueError(f"{path}: file_ending must be one of {', '.join(SUFFIXES)}, got {ending!r}.")
    return dict(description)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHORT else f"{text[:SHORT]} …"


def _channel_names(value: Any, path: Path) -> dict[str, str]:
    """Returns the channels' names by number, ``"0000"`` …; a list is numbered in its order."""
    names = dict(enumerate(value)) if isinstance(value, list) else value
    if isinstance(names, Mapping) and all(isinstance(name, str) for name in names.values()):
        numbers = [str(number) for number in names]
        if all(number.isdecimal() for number in numbers) and sorted(map(int, numbers)) == list(range(len(names))):
            return {f"{int(number):04d}": name for number, name in names.items()}
    raise ValueError(f'{path}: channel_names must map numbers from "0" to names, as in {EXAMPLE}, got {_short(value)}.')


def channel_modalities(description: Mapping, path: Path, modalities: Mapping[str, str] | None) -> dict[str, str | None]:
    """Returns the modality by channel number, ``"0000"`` …; None for the one channel of a task without modalities."""
    names = _channel_names(description["channel_names"], path)
    if modalities is None:
        if len(names) != 1:
            raise ValueError(f"{path}: channel_names must be one channel, got {', '.join(names.values())}.")
        return dict.fromkeys(names)
    channels = {number: modality_of(name, modalities) for number, name in names.items()}
    if sorted(channels.values(), key=str) != sorted(modalities):
        pairs = ", ".join(f"{names[number]} is {modality or 'unknown'}" for number, modality in channels.items())
        raise ValueError(f"{path}: channel_names must be {', '.join(modalities)}, one each; {pairs}.")
    return channels


def _nnunet_images(folder: Path, channels: Mapping[str, str | None]) -> dict[str, Any]:
    """Returns the path, or paths by modality, of each case that has all channels."""
    cases: dict[str, dict[str | None, str]] = {}
    for path in _niftis(folder):
        match = CHANNEL.fullmatch(case_id(path))
        if match and match[2] in channels:
            cases.setdefault(match[1], {})[channels[match[2]]] = str(path)
    images = {}
    for case, paths in cases.items():
        if len(paths) == len(channels):
            images[case] = paths.get(None, paths)
    return images


def _is_label(value: Any) -> bool:
    """Whether a value is a class number, or a list of them (a region of nnU-Net's)."""
    members = value if isinstance(value, list) else [value]
    return bool(members) and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in members)


def _check_classes(description: Mapping, path: Path, class_names: Sequence[str]) -> None:
    """Raises if the dataset gives one of ``class_names`` another number. Unknown names are accepted."""

    def plain(name: str) -> str:
        return re.sub(r"[^a-z0-9]", "", name.lower())

    labels = description.get("labels", {})
    if not isinstance(labels, Mapping) or not all(map(_is_label, labels.values())):
        raise ValueError(f"{path}: labels must map names to numbers, as in {EXAMPLE}, got {_short(labels)}.")
    theirs = {plain(name): value for name, value in labels.items()}
    for value, name in enumerate(class_names, start=1):
        their_value = theirs.get(plain(name), value)
        if their_value != value and not isinstance(their_value, list):
            raise ValueError(f"{path}: labels must have {name} as {value}, got {their_value}.")
