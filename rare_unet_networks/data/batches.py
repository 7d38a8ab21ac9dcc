"""Batches of training patches, also of scans whose labels train different levels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.data.utils import pad_list_data_collate
from monai.transforms import SpatialPad

from ..levels import level_scale
from ..utils.resampling import as_plain_tensor

__all__ = ["collate_patches"]

LEVEL_KEY = re.compile(r".+_(\d+)")  # of a level's image or label in a pyramid


def flatten_patches(items: Sequence[Any]) -> list[Any]:
    """Lists the patches of all items, each a dictionary or a list of them, as ``RandCropByPosNegLabeld`` returns."""
    patches: list[Any] = []
    for item in items:
        patches.extend(item if isinstance(item, list) else [item])
    return patches


def _levels_of(patch: Mapping[str, Any]) -> dict[str, int]:
    """Returns the keys of a pyramid's images and labels, and the level of each."""
    matches = {key: LEVEL_KEY.fullmatch(key) for key in patch if isinstance(patch[key], torch.Tensor)}
    return {key: int(match[1]) for key, match in matches.items() if match}


def collate_patches(items: Sequence[Any]) -> Any:
    """Batches patches with ``monai.data.utils.pad_list_data_collate``, also for transforms that return lists.

    Pyramids whose labels train different levels (``label_level``) become one batch, too: those of the finest labels
    come first, and ``image_0``, ``label_0``, … have only the members that have that level. Other entries are left out.

    Args:
        items: as in :py:func:`flatten_patches`. Patches are smaller than requested if the scan is.

    Returns:
        the batch of all patches; smaller ones are padded with zeros at their ends.
    """
    patches = flatten_patches(items)
    label_levels = [int(patch.get("label_level", 0)) for patch in patches]
    if len(set(label_levels)) == 1:
        return pad_list_data_collate(patches, method="end")
    patches = [patch for _, patch in sorted(zip(label_levels, patches), key=lambda pair: pair[0])]
    level_by_key = _levels_of(patches[0])  # a coarser label has some of these keys
    # All levels of all members cover the same extent, so that the features of a gateway fit the encoder's.
    sizes = []
    for patch in patches:
        for key, level in level_by_key.items():
            if key in patch:
                sizes.append([n * level_scale(level) for n in patch[key].shape[1:]])
    extent = [max(axis) for axis in zip(*sizes)]
    batch = {}
    for key, level in level_by_key.items():
        pad = SpatialPad([n // level_scale(level) for n in extent], method="end")
        batch[key] = torch.stack([pad(as_plain_tensor(patch[key])) for patch in patches if key in patch])
    return batch
