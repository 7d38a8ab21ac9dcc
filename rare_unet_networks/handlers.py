"""Ignite handlers that MONAI lacks: averaged weights, checkpoints to resume from, a progress bar."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines import IterationEvents
from monai.handlers import CheckpointLoader, CheckpointSaver
from monai.utils import optional_import
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

__all__ = [
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


class BestCheckpointSaver(CheckpointSaver):
    """MONAI's ``CheckpointSaver`` for the best metric, whose memory of the best so far can be saved and restored.

    Without it, the first validation after a resume would overwrite the best model, however good that was. Arguments
    as in MONAI, ``save_key_metric`` is always on.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, save_key_metric=True, **kwargs)

    def state_dict(self) -> dict:
        return self._key_metric_checkpoint.state_dict()


def _checkpoints(folder: str) -> dict[int, Path]:
    """``checkpoint_epoch=N.pt`` by N, the newest first."""
    found = {p: re.fullmatch(r"checkpoint_epoch=(\d+)\.pt", p.name) for p in Path(folder).glob("*.pt")}
    return dict(sorted(((int(m[1]), p) for p, m in found.items() if m), reverse=True))


def last_epoch(folder: str) -> int:
    """Epochs already trained according to a folder's checkpoints, to seed a resumed training differently."""
    return next(iter(_checkpoints(folder)), 0)


def latest_checkpoint(folder: str) -> str | None:
    """The newest whole checkpoint in a folder; one cut short by a kill is passed over with a warning."""
    for path in _checkpoints(folder).values():
        try:
            torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            logger.warning(f"{path} cannot be read ({type(error).__name__}), trying the one before it")
        else:
            logger.info(f"resuming from {path}")
            return str(path)
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
        CheckpointSaver(self.save_dir, objects, save_interval=self.interval, n_saved=2).attach(engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval), self._prune)

    def _tell_if_done(self, engine: Engine) -> None:
        if engine.state.epoch >= engine.state.max_epochs:
            logger.info(f"all {engine.state.max_epochs} epochs are trained already, nothing is left to do")

    def _prune(self, engine: Engine) -> None:
        """Removes what a run before this one left: each run's saver knows its own files only."""
        if engine.state.rank == 0:
            for path in list(_checkpoints(self.save_dir).values())[2:]:
                path.unlink(missing_ok=True)


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
