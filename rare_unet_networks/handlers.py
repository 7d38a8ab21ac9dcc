"""Ignite handlers that MONAI lacks: averaged weights, checkpoints to resume from, a progress bar."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from ignite.handlers import DiskSaver
from monai.engines import IterationEvents
from monai.handlers import CheckpointLoader, CheckpointSaver
from monai.utils import optional_import
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

__all__ = [
    "AtomicDiskSaver",
    "BestCheckpointSaver",
    "ClipGradients",
    "LossAlone",
    "ProgressBar",
    "ResumableCheckpoint",
    "UpdateAverage",
    "averaged_model",
    "cosine_decay",
    "has_tensorboard",
    "last_epoch",
    "latest_checkpoint",
]

logger = logging.getLogger(__name__)


def averaged_model(network: torch.nn.Module, decay: float = 0.995) -> AveragedModel:
    """Exponential moving average of a network's weights (``torch.optim.swa_utils``); ``.module`` is the network."""
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay))


def cosine_decay(max_epochs: int) -> Callable[[int], float]:
    """Factor of the learning rate from 1 to 0 over ``max_epochs``, for ``torch.optim.lr_scheduler.LambdaLR``.

    Unlike ``CosineAnnealingLR`` it keeps no length in its state: a training resumed with a larger ``max_epochs``
    follows the longer curve instead of climbing again after the shorter one.
    """

    def factor(epoch: int) -> float:
        return 0.5 * (1 + math.cos(math.pi * min(epoch / max_epochs, 1.0)))

    return factor


class UpdateAverage:
    """Updates an averaged model after every iteration.

    Args:
        averaged: the average.
        network: the network in training.
    """

    def __init__(self, averaged: AveragedModel, network: torch.nn.Module) -> None:
        self.averaged = averaged
        self.network = network

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: self.averaged.update_parameters(self.network))


class ClipGradients:
    """Scales the gradients of every step down to a total norm, as the authors do.

    Args:
        network: the network in training.
        max_norm: largest Euclidean norm of all gradients together.
    """

    def __init__(self, network: torch.nn.Module, max_norm: float = 1.0) -> None:
        self.network = network
        self.max_norm = max_norm

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._clip)

    def _clip(self, engine: Engine) -> None:
        if getattr(engine, "scaler", None) is not None:
            engine.scaler.unscale_(engine.optimizer)  # else the norm would be that of the scaled loss
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.max_norm)


class LossAlone:
    """Leaves the loss of a training step's output, in the form that MONAI's handlers read: a list with an item of it.

    MONAI's decollating makes such lists, but not of a pyramid's lists of logits. Without one
    ``TensorBoardStatsHandler`` passes over the loss with a warning, and ``MLFlowHandler`` fails.
    """

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._reduce)

    def _reduce(self, engine: Engine) -> None:
        engine.state.output = [{"loss": engine.state.output["loss"].detach()}]


class AtomicDiskSaver(DiskSaver):
    """Ignite's ``DiskSaver`` that never leaves a file cut short, nor a moment without the file.

    A checkpoint is written to a temporary name and then renamed. Ignite's own ``atomic`` makes files that their owner
    alone may read, and with a fixed name MONAI's saver removes the old file before it writes the new one.

    Args:
        dirname: folder of the checkpoints, made if it does not exist.
        filename: fixed name of the file, which each checkpoint replaces; by default the name that ignite gives.
    """

    def __init__(self, dirname: str, filename: str | None = None) -> None:
        super().__init__(dirname, atomic=False, require_empty=False)
        self.filename = filename

    def __call__(self, checkpoint: Mapping, filename: str, metadata: Mapping | None = None) -> None:
        path = Path(self.dirname) / (self.filename or filename)
        temporary = path.with_name(f"{path.name}.tmp")
        super().__call__(checkpoint, temporary.name, metadata)
        if temporary.exists():  # only one process writes
            os.replace(temporary, path)

    def remove(self, filename: str) -> None:
        # The file of a fixed name is replaced, so there is nothing to remove; another may be gone already.
        if self.filename is None:
            (Path(self.dirname) / filename).unlink(missing_ok=True)


class BestCheckpointSaver(CheckpointSaver):
    """MONAI's ``CheckpointSaver`` for the best metric, whose memory of the best so far can be saved and restored.

    Without it, the first validation after a resume would overwrite the best model, however good that was. The file is
    replaced as a whole: a kill at any moment leaves the old or the new one. Arguments as in MONAI, ``save_key_metric``
    is always on.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, save_key_metric=True, **kwargs)
        saver = self._key_metric_checkpoint
        saver.save_handler = AtomicDiskSaver(self.save_dir, saver.save_handler.filename)

    def state_dict(self) -> dict:
        return self._key_metric_checkpoint.state_dict()


def _checkpoints(folder: str) -> dict[int, Path]:
    """``checkpoint_epoch=N.pt`` by N, the newest first."""
    found = {p: re.fullmatch(r"checkpoint_epoch=(\d+)\.pt", p.name) for p in Path(folder).glob("*.pt")}
    return dict(sorted(((int(m[1]), p) for p, m in found.items() if m), reverse=True))


def last_epoch(folder: str) -> int:
    """Epochs already trained according to a folder's checkpoints, to seed a resumed training differently."""
    return next(iter(_checkpoints(folder)), 0)


def _is_readable(path: Path) -> bool:
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises whatever the unpickler stumbles over
        logger.warning(f"{path} cannot be read ({type(error).__name__})")
        return False
    return True


def latest_checkpoint(folder: str) -> str | None:
    """Path of the newest checkpoint in a folder that can be read, None in a folder without checkpoints.

    Raises:
        ValueError: when there are checkpoints and none can be read: a training that started over would replace the
            best weights of the one before.
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


class ResumableCheckpoint:
    """Saves everything a training needs to go on, and goes on from the newest checkpoint that is already there.

    MONAI's ``CheckpointSaver`` and ``CheckpointLoader`` in one, with the trainer itself (epoch, iteration and the
    scaler of mixed precision) among the objects, which a config cannot refer to from its own handlers. The last two
    checkpoints are kept, because a kill can hit while one is written. Put it after the handlers whose state it saves.

    Args:
        save_dir: folder of the checkpoints.
        objects: what to save and restore, by name.
        interval: save every so many epochs.
        map_location: where to load tensors.
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
            CheckpointLoader(newest, objects, map_location=self.map_location).attach(engine)
            engine.add_event_handler(Events.STARTED, self._tell_if_done)
        saver = CheckpointSaver(self.save_dir, objects, save_interval=self.interval, n_saved=2)
        saver._interval_checkpoint.save_handler = AtomicDiskSaver(self.save_dir)
        saver.attach(engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval), self._prune)

    def _tell_if_done(self, engine: Engine) -> None:
        if engine.state.epoch >= engine.state.max_epochs:
            logger.info(f"all {engine.state.max_epochs} epochs are trained already, nothing is left to do")

    def _prune(self, engine: Engine) -> None:
        """Removes what a run before this one left: each run's saver knows its own files only.

        Files of later epochs are those that could not be read when this run started. They do not count.
        """
        if engine.state.rank == 0:
            epochs = [epoch for epoch in _checkpoints(self.save_dir) if epoch <= engine.state.epoch]
            for epoch in epochs[2:]:
                _checkpoints(self.save_dir)[epoch].unlink(missing_ok=True)


@cache
def has_tensorboard() -> bool:
    """Whether this process is the one to write TensorBoard's curves; says so once if that is not installed.

    For a config's ``_disabled_``.
    """
    _, found = optional_import("tensorboard")
    if not found:
        logger.warning("tensorboard is not installed: no curves (pip install 'rare-unet-networks[train]')")
    return found and idist.get_rank() == 0


class ProgressBar:
    """tqdm progress bar with remaining time and, in training, the loss; without tqdm it says so once and does nothing.

    Args:
        desc: text before the bar.
    """

    def __init__(self, desc: str = "training") -> None:
        self.desc = desc

    def attach(self, engine: Engine) -> None:
        if idist.get_rank() > 0:
            return
        _, has_tqdm = optional_import("tqdm")
        if not has_tqdm:
            logger.warning("tqdm is not installed: no progress bar (pip install 'rare-unet-networks[train]')")
            return
        from ignite.handlers.tqdm_logger import ProgressBar as IgniteProgressBar

        def loss(output: Any) -> dict[str, float]:
            return {"loss": float(output[0]["loss"])} if output and "loss" in output[0] else {}

        IgniteProgressBar(desc=self.desc, persist=True, mininterval=1.0).attach(engine, output_transform=loss)
