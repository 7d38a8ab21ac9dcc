"""Scans to segment in the folders of a dataset: the Decathlon's layout, and nnU-Net's with a file per channel."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..utils.errors import one_line
from ..utils.switches import is_on
from .datalists import FAILURE, case_id, files_of, input_datalist, list_niftis, refuse_names, refuse_shared_paths
from .dicom import is_dicom_file
from .labelled import CHANNEL, channel_modalities, nnunet_description
from .modalities import case_item, modality_datalist

__all__ = ["scan_datalist"]

logger = logging.getLogger(__name__)
IMAGES = ("imagesTr", "imagesTs")
FIRST = "0000"


def scan_datalist(
    path: str,
    grid: str = "scan",
    modalities: Mapping[str, str] | None = None,
    allow_missing: bool | str = False,
    dicom_seg: bool | str = False,
) -> list[dict[str, Any]]:
    """Lists scans to segment.

    - The root of a dataset (a folder with ``imagesTr/``) gives its images, those of ``imagesTs/`` too, and never its
      labels.
    - A folder of images whose ``dataset.json``, there or in the folder above, has ``channel_names`` is nnU-Net's: it
      has a file ``CASE_0000.nii.gz`` per channel, and the channel's name gives its modality.
    - For a task of one channel, ``CASE_0000.nii.gz`` is the image of the case ``CASE`` also without that file, if all
      files of the folder have such names.
    - Any other path is left to :py:func:`input_datalist` or, with modalities, :py:func:`modality_datalist`.

    Args:
        path: a file or a folder.
        grid: grid of the predictions, ``"scan"`` or ``"fine"``; it is part of their names.
        modalities: pattern by modality, see :py:func:`modality_datalist`; None for a task of one channel.
        allow_missing: segment a case without a modality.
        dicom_seg: mark scans that are no DICOM series as failures, because a DICOM segmentation belongs to a series.

    Returns:
        items with ``image`` and ``case``, see :py:func:`input_datalist`.

    Raises:
        ValueError: If the path does not exist or has no scans, or if the channels of a dataset cannot be told.
    """
    source = Path(str(path))
    folders = [source / name for name in IMAGES if (source / name).is_dir()]
    if folders:
        names = " and ".join(folder.name for folder in folders)
        logger.info(f"{one_line(str(source))} is a dataset: the scans of {names} are taken, no labels")
    items = []
    for folder in folders or [source]:
        channels = _channels_of(folder, modalities)
        if channels is not None:
            items += _items_by_channel(folder, channels, modalities, is_on(allow_missing))
        elif modalities is None:
            items += input_datalist(str(folder), grid)
        else:
            items += modality_datalist(str(folder), modalities, allow_missing, grid)
    refuse_names(items)
    refuse_shared_paths(items, grid)
    if is_on(dicom_seg):
        refuse_other_formats(items)
    return items


def refuse_other_formats(items: Sequence[dict[str, Any]]) -> None:
    """Marks items that are no DICOM series as failures."""
    for item in items:
        files = files_of(item["image"])
        if FAILURE not in item and not any(is_dicom_file(Path(file)) for file in files):
            item[FAILURE] = f"dicom_seg needs a DICOM series as input, got {Path(files[0]).name}"


def _channels_of(folder: Path, modalities: Mapping[str, str] | None) -> dict[str, str | None] | None:
    """Returns the modality by channel number of a folder in nnU-Net's layout; None for any other path."""
    matches = [CHANNEL.fullmatch(case_id(file)) for file in list_niftis(folder)] if folder.is_dir() else []
    if not any(matches):
        return None
    for path in (folder / "dataset.json", folder.parent / "dataset.json"):
        description = nnunet_description(path)
        if description is not None:
            return channel_modalities(description, path, modalities)
    numbers = {match[2] if match else "" for match in matches}
    if modalities is None:
        return {FIRST: None} if numbers == {FIRST} else None
    if len(numbers) > 1 and numbers == {f"{i:04d}" for i in range(len(numbers))}:
        raise ValueError(
            f"input: the files of {one_line(str(folder))} are named as nnU-Net's, which channel is which is said in "
            "dataset.json: put it there or into the folder above."
        )
    return None


def _items_by_channel(
    folder: Path, channels: Mapping[str, str | None], modalities: Mapping[str, str] | None, allow_missing: bool
) -> list[dict[str, Any]]:
    cases: dict[str, list[tuple[str, str]]] = {}
    left_out = []
    for path in list_niftis(folder):
        match = CHANNEL.fullmatch(case_id(path))
        if match and match[2] in channels:
            cases.setdefault(match[1], []).append((str(channels[match[2]]), str(path)))
        else:
            left_out.append(path.name)
    if not cases:
        raise ValueError(f"input must hold files such as CASE_0000.nii.gz, {one_line(str(folder))} has none.")
    if left_out:
        logger.warning(f"{one_line(str(folder))}: no channel of the dataset: {', '.join(map(one_line, left_out))}")
    logger.info(f"{len(cases)} case(s) of {', '.join(filter(None, channels.values())) or 'one channel'} in {folder}")
    if modalities is None:
        return [{"image": files[0][1], "case": case} for case, files in cases.items()]
    return [case_item(files, case, modalities, allow_missing) for case, files in cases.items()]
