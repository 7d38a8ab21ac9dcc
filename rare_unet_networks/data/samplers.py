"""A sampler for several processes that write into one folder."""

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
    """Yields the indices of cases that no other process does, and claims each just before it is loaded.

    Their number is not known in advance, so a ``DataLoader`` with this sampler has no length. At the end the sampler
    tries once more the cases that others had claimed, because a process may have died. It does not wait for processes
    that still work.

    Args:
        dataset: its ``data`` are items from :py:meth:`rare_unet_networks.data.CaseRecords.pending`.
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
                if FAILURE in items[index]:  # rank 0 reports all failures, also two of one case
                    is_ours = rank() == 0
                if is_ours:
                    yield index
                elif FAILURE not in items[index]:
                    claimed_by_others.append(index)
            waiting = claimed_by_others
        if waiting:
            logger.info(f"{len(waiting)} of {len(items)} were left to other processes that work into the same folder")
