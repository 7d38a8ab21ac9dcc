"""Which cases a process does, where several work into one folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from torch.utils.data import Dataset, Sampler

from ..utils.distributed import rank
from .datalists import FAILURE
from .records import CaseRecords

__all__ = ["UnclaimedSampler"]

logger = logging.getLogger(__name__)


class UnclaimedSampler(Sampler):
    """Indices of the cases that no other process does, each claimed just before it is loaded, for a ``DataLoader``.

    How many they are is known at the end only, so a loader with this sampler has no length. At the end it looks once
    more at the cases that others had claimed, since a process may have died; it does not wait for those at work.

    Args:
        dataset: its ``data`` are items as of :py:meth:`rare_unet_networks.data.CaseRecords.pending`.
        records: the records of the folder of the predictions.
    """

    def __init__(self, dataset: Dataset, records: CaseRecords) -> None:
        self.dataset = dataset
        self.records = records

    def __iter__(self) -> Iterator[int]:
        items = self.dataset.data
        waiting = list(range(len(items)))
        for _ in range(2):
            claimed_by_others = []
            for index in waiting:
                is_ours = self.records.acquire(items[index])
                if FAILURE in items[index]:  # two scans may want to be one case: both are reported
                    is_ours = rank() == 0
                if is_ours:
                    yield index
                elif FAILURE not in items[index]:
                    claimed_by_others.append(index)
            waiting = claimed_by_others
        if waiting:
            logger.info(f"{len(waiting)} of {len(items)} were left to other processes that work into the same folder")
