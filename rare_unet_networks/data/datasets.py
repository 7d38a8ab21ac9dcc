"""Datasets that MONAI lacks: cases at several levels, and cases that may fail."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.data import CacheDataset, Dataset
from monai.data.utils import pad_list_data_collate

from ..utils.errors import root_cause
from .datalists import FAILURE, expand_levels

__all__ = ["FaultTolerantDataset", "LevelsDataset", "collate_patches"]

logger = logging.getLogger(__name__)


class LevelsDataset(CacheDataset):
    """``monai.data.CacheDataset`` of every item at every level, see :py:func:`rare_unet_networks.data.expand_levels`.

    Programs that bring their own items, such as MONAI Label, replace ``data`` in a config and know of no levels.

    Args:
        data: items, dictionaries with ``image``.
        levels: levels that each is seen at.
        args: further arguments as in MONAI.
        kwargs: likewise.
    """

    def __init__(self, data: Sequence[dict], levels: Sequence[int], *args: Any, **kwargs: Any) -> None:
        super().__init__(expand_levels(data, levels), *args, **kwargs)


class FaultTolerantDataset(Dataset):
    """``monai.data.Dataset`` whose items that cannot be read or transformed become a failure instead of an exception.

    Args:
        data: items, dictionaries.
        transform: applied to an item when it is asked for.
        name_key: entry that names the file of an item.
    """

    def __init__(self, data: Sequence[dict], transform: Callable | None = None, name_key: Hashable = "image") -> None:
        super().__init__(data, transform)
        self.name_key = name_key

    def __getitem__(self, index: int) -> dict:
        item = self.data[index]
        if FAILURE in item:
            return self._failure(item, item[FAILURE])
        try:
            return super().__getitem__(index)
        except Exception as error:  # whatever a reader or a transform raises belongs to this one case
            return self._failure(item, root_cause(error))

    def _failure(self, item: dict, reason: str) -> dict:
        return {FAILURE: reason, self.name_key: self._name(item), "case": str(item.get("case", ""))}

    def _name(self, item: dict) -> str:
        """The file of an item; of one with a file per modality their folder and the case."""
        path = item[self.name_key]
        if isinstance(path, Mapping):
            return str(Path(next(iter(path.values()))).parent / str(item.get("case", "")))
        return str(path)


def collate_patches(items: Sequence[Any]) -> Any:
    """``monai.data.utils.pad_list_data_collate`` for transforms that give a list of patches: padded to equal size.

    Args:
        items: a dictionary each, or a list of them, as of ``RandCropByPosNegLabeld``, whose patches are smaller than
            asked for where the scan is.

    Returns:
        the batch, every patch a member; smaller ones are padded with zeros at their ends.
    """
    patches = [patch for item in items for patch in (item if isinstance(item, list) else [item])]
    return pad_list_data_collate(patches, method="end")
