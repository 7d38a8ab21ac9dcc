"""Datasets that MONAI lacks: cached with checked files, repeated at several levels, or tolerant of faults."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.data import CacheDataset, Dataset, MetaTensor

from ..levels import ResolutionLevels
from ..utils.errors import RefusedError, innermost, root_cause
from .datalists import FAILURE, REFUSED, expand_levels, files_of, place_of
from .files import check_item
from .scored_levels import expand_scored_levels

__all__ = ["CachedDataset", "FaultTolerantDataset", "LevelsDataset"]

FILE_KEYS = ("image", "label")  # entries of an item that are files


def _files(item: Mapping) -> Iterator[Any]:
    return (item[key] for key in FILE_KEYS if key in item)


def _check_files(item: Mapping) -> None:
    for entry in _files(item):
        check_item(entry)


class CachedDataset(CacheDataset):
    """``monai.data.CacheDataset`` that checks files before reading, and ends its threads before it raises.

    MONAI raises while other threads still load. If they are alive when Python ends, it often aborts (status 134).
    Here all threads end first.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._filling = False
        self._error: Exception | None = None
        super().__init__(*args, **kwargs)

    def _fill_cache(self, indices: Any = None) -> list:
        self._filling, self._error = True, None
        cache = super()._fill_cache(indices)
        self._filling = False
        if self._error is not None:
            raise self._error
        return cache

    def _load_cache_item(self, idx: int) -> Any:
        if self._filling and self._error is not None:
            return None  # the cache will not be used
        try:
            _check_files(self.data[idx])
            return super()._load_cache_item(idx)
        except Exception as error:  # whatever a reader or a transform raises
            if not self._filling:
                raise
            self._error = error
            return None

    def _transform(self, index: int) -> Any:
        if index % len(self) >= self.cache_num:
            _check_files(self.data[index])
        return super()._transform(index)


class LevelsDataset(CachedDataset):
    """Contains every item at every level, or at those at which it can be scored.

    See :py:func:`rare_unet_networks.data.expand_levels` and :py:func:`rare_unet_networks.data.expand_scored_levels`.

    Levels are an argument here because programs such as MONAI Label replace ``data`` in a config.

    Args:
        data: items, dictionaries with ``image``.
        levels: levels at which each item occurs.
        args: further arguments as in MONAI.
        resolution_levels: the resolution levels of the task, for labelled scans of any voxel size.
        kwargs: as in MONAI.
    """

    def __init__(
        self,
        data: Sequence[dict],
        levels: Sequence[int],
        *args: Any,
        resolution_levels: ResolutionLevels | None = None,
        **kwargs: Any,
    ) -> None:
        if resolution_levels is None:
            expanded = expand_levels(data, levels)
        else:
            expanded = expand_scored_levels(data, levels, resolution_levels)
        super().__init__(expanded, *args, **kwargs)


class FaultTolerantDataset(Dataset):
    """``monai.data.Dataset`` that returns a failure, not an exception, for an item that cannot be read or transformed.

    Args:
        data: items, dictionaries.
        transform: applied to an item on access.
        name_key: key of an item's file.
    """

    def __init__(self, data: Sequence[dict], transform: Callable | None = None, name_key: Hashable = "image") -> None:
        super().__init__(data, transform)
        self.name_key = name_key

    def __getitem__(self, index: int) -> dict:
        item = self.data[index]
        if FAILURE in item:
            return self._failure(item, item[FAILURE])
        try:
            _check_files(item)
            loaded = super().__getitem__(index)
        except Exception as error:  # whatever a reader or a transform raises belongs to this one case
            failure = self._failure(item, root_cause(error))
            cause = innermost(error)
            if isinstance(cause, RefusedError):
                failure[self.name_key] = cause.name
                failure[REFUSED] = json.dumps({"reason": cause.reason, "spacing": cause.spacing})
            return failure
        image = loaded.get(self.name_key) if isinstance(loaded, Mapping) else None
        if isinstance(image, MetaTensor) and "case" in item:
            image.meta["case"] = str(item["case"])  # names the prediction, see PredictionLayout
        return loaded

    def _failure(self, item: dict, reason: str) -> dict:
        return {FAILURE: reason, self.name_key: self._name(item, reason), "case": str(item.get("case", ""))}

    def _name(self, item: dict, reason: str) -> str:
        """Returns the file that the reason names, else the image (of a file per modality, folder and case)."""
        for entry in _files(item):
            for path in files_of(entry):
                if reason.startswith(f"{path}: "):
                    return path
        entry = item[self.name_key]
        if isinstance(entry, Mapping):
            return str(Path(files_of(entry)[0]).parent / str(item.get("case", "")))
        return place_of(entry)
