"""Helpers for distributed runs: they split cases and gather results. All do nothing in a single process."""

from __future__ import annotations

import atexit
import logging
from collections.abc import Sized
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from ignite.distributed import get_rank as rank
from ignite.distributed import get_world_size as world_size
from monai.data import DistributedSampler
from torch.utils.data import Sampler, SequentialSampler

__all__ = [
    "all_gather",
    "broadcast_from_rank0",
    "distributed_sampler",
    "init_distributed",
    "rank",
    "world_size",
]

# A rank that is done waits for the slowest one, however large its scans are. If one dies, torchrun ends the others.
PATIENCE = timedelta(days=30)


def init_distributed(device: torch.device) -> None:
    """Joins the processes that ``torchrun`` started, for inference or evaluation. For a config's ``initialize``.

    The ranks exchange only file names and scores, so gloo is enough on GPUs, too. Rank 0 logs everything, the others
    only messages about single scans and warnings.

    Args:
        device: device of this process.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(backend="gloo", init_method="env://", timeout=PATIENCE)
    atexit.register(_leave)
    if rank() > 0:
        scan_logger = logging.getLogger("rare_unet_networks.handlers.case_records")
        scan_logger.setLevel(scan_logger.getEffectiveLevel())
        logging.getLogger().setLevel(logging.WARNING)


def _leave() -> None:
    """Leaves the process group; otherwise gloo's threads sometimes abort a finished program at the end of Python."""
    if dist.is_initialized():
        dist.destroy_process_group()


def distributed_sampler(dataset: Sized) -> Sampler:
    """Sampler of this rank's part of a dataset, in order; each item is in one part only.

    MONAI's ``DistributedSampler`` rejects a dataset with fewer items than ranks, which a resumed run may have. Here
    some ranks then get no items.

    Args:
        dataset: dataset to split.
    """
    parts = min(world_size(), len(dataset))
    if rank() >= parts:
        return SequentialSampler([])
    return DistributedSampler(dataset, even_divisible=False, shuffle=False, num_replicas=parts, rank=rank())


def all_gather(value: Any) -> list[Any]:
    """Gathers ``value`` from all ranks, in their order. Collective: every rank must call it."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def broadcast_from_rank0(value: Any) -> Any:
    """Returns the value of rank 0 on all ranks. Collective: every rank must call it.

    For what is read from files that other ranks may already be writing: all ranks then use the same.
    """
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]
