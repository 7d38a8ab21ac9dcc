"""Checkpoints: those of a training to resume, and the best weights."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import DiskSaver
from monai.handlers import CheckpointLoader, CheckpointSaver
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..networks.weights import check_archive
from ..utils.errors import root_cause

__all__ = ["AtomicDiskSaver", "BestCheckpointSaver", "ResumableCheckpoint", "last_epoch", "latest_checkpoint"]

logger = logging.getLogger(__name__)
MIN_FREE = 1 << 16  # bytes; a disk with less free space counts as full


class AtomicDiskSaver(DiskSaver):
    """Ignite's ``DiskSaver`` that replaces files atomically: at any moment the old or the new file is complete.

    A checkpoint is written to a temporary file, which is then renamed. Ignite's own ``atomic`` makes files that only
    their owner can read. And with a fixed name, MONAI's saver removes the old file before it writes the new one.

    Args:
        dirname: folder of the checkpoints, created if it does not exist.
        filename: fixed name of the file, which each checkpoint replaces; by default the name that Ignite gives.
    """

    def __init__(self, dirname: str, filename: str | None = None) -> None:
        super().__init__(dirname, atomic=False, require_empty=False)
        self.filename = filename

    def __call__(self, checkpoint: Mapping, filename: str, metadata: Mapping | None = None) -> None:
        path = Path(self.dirname) / (self.filename or filename)
        temporary = path.with_name(f"{path.name}.tmp")
        try:
            super().__call__(checkpoint, temporary.name, metadata)
        except (OSError, RuntimeError) as error:
            # The message of PyTorch names the place in its C++ code, not the reason.
            is_full = path.parent.exists() and shutil.disk_usage(path.parent).free < MIN_FREE
            temporary.unlink(missing_ok=True)
            reason = "No space left on device" if is_full else root_cause(error)
            raise OSError(f"{path} could not be written: {reason}") from None
        if temporary.exists():  # only rank 0 writes
            os.replace(temporary, path)

    def remove(self, filename: str) -> None:
        # A file of a fixed name is replaced, not removed. Any other file may have been removed by _prune already.
        if self.filename is None:
            (Path(self.dirname) / filename).unlink(missing_ok=True)


class BestCheckpointSaver(CheckpointSaver):
    """MONAI's ``CheckpointSaver`` for the best metric, with a state that can be saved and restored.

    The state is the best metric so far. Without it, the first validation after a resume would overwrite the best model,
    however good that was. The file is replaced atomically, see :py:class:`AtomicDiskSaver`. Arguments as in MONAI;
    ``save_key_metric`` is always on.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, save_key_metric=True, **kwargs)
        saver = self._key_metric_checkpoint
        saver.save_handler = AtomicDiskSaver(self.save_dir, saver.save_handler.filename)

    def state_dict(self) -> dict:
        return self._key_metric_checkpoint.state_dict()


def _checkpoints(folder: str) -> dict[int, Path]:
    """Files ``checkpoint_epoch=N.pt`` by N, the newest first."""
    path_by_epoch = {}
    for path in Path(folder).glob("*.pt"):
        match = re.fullmatch(r"checkpoint_epoch=(\d+)\.pt", path.name)
        if match:
            path_by_epoch[int(match[1])] = path
    return dict(sorted(path_by_epoch.items(), reverse=True))


def last_epoch(folder: str) -> int:
    """Epochs already trained, by the checkpoints of a folder; a resumed training needs another seed than a new one."""
    return next(iter(_checkpoints(folder)), 0)


def _is_readable(path: Path) -> bool:
    try:
        check_archive(path)
        torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler can raise any exception on a damaged file
        reason = str(error) if isinstance(error, ValueError) else type(error).__name__
        logger.warning(f"{path} cannot be read ({reason})")
        return False
    return True


def latest_checkpoint(folder: str) -> str | None:
    """Path of the newest readable checkpoint in a folder; None if the folder has no checkpoints.

    Raises:
        ValueError: if there are checkpoints but none can be read. A training that started over would overwrite the best
            weights of the interrupted one.
    """
    paths = list(_checkpoints(folder).values())
    for path in paths:
        if _is_readable(path):
            logger.info(f"resuming from {path}")
            return str(path)
    if paths:
        raise ValueError(
            f"{folder}: none of the {len(paths)} checkpoints can be read, so the training cannot go on; "
            "to start over, choose another output_dir or remove them."
        )
    return None


def _take_options(optimizer: Optimizer, configured: Sequence[Mapping], schedulers: Sequence[LRScheduler]) -> None:
    """Sets the options of this command in a restored optimizer, where those of the checkpoint would silently win.

    Args:
        optimizer: the restored optimizer.
        configured: options of its parameter groups before it was restored.
        schedulers: schedulers of the learning rate; their curves continue in proportion to the new learning rate.
    """
    for index, (group, options) in enumerate(zip(optimizer.param_groups, configured)):
        for name, value in options.items():
            if name in ("params", "lr") or group.get(name) == value:
                continue  # the scheduler sets the current learning rate
            logger.warning(f"resuming with {'lr' if name == 'initial_lr' else name} {value}, it was {group.get(name)}")
            if name == "initial_lr":
                group["lr"] *= value / group[name]
                for scheduler in schedulers:
                    if scheduler.optimizer is optimizer:
                        scheduler.base_lrs[index] = value
            group[name] = value


class ResumableCheckpoint:
    """Saves checkpoints of a training, and resumes from the newest one in the folder.

    It combines MONAI's ``CheckpointSaver`` and ``CheckpointLoader``. It adds the trainer itself (epoch, iteration and
    the scaler of mixed precision), to which the handlers in a config cannot refer. The last two checkpoints are kept,
    in case the newest cannot be read. A training stops before it saves weights that are NaN or infinite. Put
    this handler after those whose state it saves.

    Args:
        save_dir: folder of the checkpoints.
        objects: objects to save and restore, by name.
        interval: number of epochs between checkpoints.
        map_location: device to load tensors to.
    """

    def __init__(self, save_dir: str, objects: dict[str, Any], interval: int = 1, map_location: Any = None) -> None:
        self.save_dir = save_dir
        self.objects = objects
        self.interval = interval
        self.map_location = map_location

    def attach(self, engine: Engine) -> None:
        objects = {"trainer": engine, **self.objects}
        if getattr(engine, "scaler", None) is not None:
            objects["scaler"] = engine.scaler
        newest = latest_checkpoint(self.save_dir)
        if newest is not None:
            engine.add_event_handler(Events.STARTED, self._resume, newest, objects)
            engine.add_event_handler(Events.STARTED, self._log_if_done)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._check_weights)
        saver = CheckpointSaver(self.save_dir, objects, save_interval=self.interval, n_saved=2)
        saver._interval_checkpoint.save_handler = AtomicDiskSaver(self.save_dir)
        saver.attach(engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval), self._prune)

    def _resume(self, engine: Engine, path: str, objects: Mapping[str, Any]) -> None:
        optimizers = [x for x in objects.values() if isinstance(x, Optimizer)]
        schedulers = [x for x in objects.values() if isinstance(x, LRScheduler)]
        configured = [[dict(group, params=None) for group in optimizer.param_groups] for optimizer in optimizers]
        loader = CheckpointLoader(path, objects, map_location=self.map_location)
        loader.logger = logger
        try:
            loader(engine)
        except (RuntimeError, KeyError) as error:
            raise ValueError(f"{path} is of a training with other options: {root_cause(error)}") from None
        for optimizer, groups in zip(optimizers, configured):
            _take_options(optimizer, groups, schedulers)

    def _check_weights(self, engine: Engine) -> None:
        for module in self.objects.values():
            if isinstance(module, nn.Module) and not all(p.isfinite().all() for p in module.parameters()):
                raise ValueError(
                    f"{self.save_dir}: after epoch {engine.state.epoch} weights are NaN or infinite, so the training "
                    "cannot go on: go on from the checkpoints with a lower learning_rate."
                )

    def _log_if_done(self, engine: Engine) -> None:
        if engine.state.epoch >= engine.state.max_epochs:
            logger.info(f"all {engine.state.max_epochs} epochs are trained already, nothing is left to do")

    def _prune(self, engine: Engine) -> None:
        """Removes checkpoints of earlier runs, which the saver of this run does not know.

        Files of later epochs could not be read when this run started; they do not count as checkpoints.
        """
        if engine.state.rank == 0:
            epochs = [epoch for epoch in _checkpoints(self.save_dir) if epoch <= engine.state.epoch]
            for epoch in epochs[2:]:
                _checkpoints(self.save_dir)[epoch].unlink(missing_ok=True)
