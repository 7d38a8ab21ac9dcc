"""What several processes of one command share: cases, what they found. One alone has all to itself."""

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

# A process that is done waits for the slowest, however large its scans are; one that died is torchrun's business.
PATIENCE = timedelta(days=30)


def init_distributed(device: torch.device) -> None:
    """Joins the processes that ``torchrun`` started, for inference or evaluation: a config's ``initialize``.

    They exchange names of files and scores only, so gloo serves on GPUs, too. The first one logs; of the others only
    what concerns single scans and warnings are seen.

    Args:
        device: where this process computes.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(backend="gloo", init_method="env://", timeout=PATIENCE)
    atexit.register(_leave)
    if rank() > 0:
        of_scans = logging.getLogger("rare_unet_networks.inferers")
        of_scans.setLevel(of_scans.getEffectiveLevel())
        logging.getLogger().setLevel(logging.WARNING)


def _leave() -> None:
    """Ends gloo's threads: left to the end of Python they abort, now and then, a program that has done its work."""
    if dist.is_initialized():
        dist.destroy_process_group()


def distributed_sampler(dataset: Sized) -> Sampler:
    """This process's part of a dataset, in order, each item in one part only; of few items some processes get none.

    MONAI's ``DistributedSampler``, which refuses fewer items than processes: what is left of a list when a run is
    resumed can be that.

    Args:
        dataset: what is shared out.
    """
    parts = min(world_size(), len(dataset))
    if rank() >= parts:
        return SequentialSampler([])
    return DistributedSampler(dataset, even_divisible=False, shuffle=False, num_replicas=parts, rank=rank())


def all_gather(value: Any) -> list[Any]:
    """What every process has, by rank. All of them have to call it; it waits for the last."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def broadcast_from_rank0(value: Any) -> Any:
    """What the first process has: what is read from files that others may be writing already is decided once."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]
