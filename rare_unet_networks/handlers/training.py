"""Ignite handlers for training that MONAI lacks: clipping, the loss alone, a progress bar."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine
from monai.engines import IterationEvents
from monai.utils import optional_import

__all__ = [
    "ClipGradients",
    "KeepLossOnly",
    "ProgressBar",
    "cosine_decay",
    "has_tensorboard",
]

logger = logging.getLogger(__name__)


def cosine_decay(max_epochs: int) -> Callable[[int], float]:
    """Factor of the learning rate from 1 to 0 over ``max_epochs``, for ``torch.optim.lr_scheduler.LambdaLR``.

    Unlike ``CosineAnnealingLR`` it keeps no length in its state: a training resumed with a larger ``max_epochs``
    follows the longer curve instead of climbing again after the shorter one.
    """

    def factor(epoch: int) -> float:
        return 0.5 * (1 + math.cos(math.pi * min(epoch / max_epochs, 1.0)))

    return factor


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


class KeepLossOnly:
    """Leaves the loss of a training step's output, in the form that MONAI's handlers read: a list with an item of it.

    MONAI's decollating makes such lists, but not of a pyramid's lists of logits. Without one
    ``TensorBoardStatsHandler`` passes over the loss with a warning, and ``MLFlowHandler`` fails.
    """

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._reduce)

    def _reduce(self, engine: Engine) -> None:
        engine.state.output = [{"loss": engine.state.output["loss"].detach()}]


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
