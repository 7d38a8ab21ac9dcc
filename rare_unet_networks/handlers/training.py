"""Ignite handlers for training that MONAI lacks: gradient clipping, output of the loss, a progress bar."""

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
    """Cosine decay of the learning rate to 0 over ``max_epochs``, for ``torch.optim.lr_scheduler.LambdaLR``.

    Unlike ``CosineAnnealingLR`` it does not store the length in its state. So a training that is resumed with a larger
    ``max_epochs`` follows the longer curve; otherwise its learning rate would rise again after the shorter one.

    Returns:
        function from the epoch to the factor of the learning rate, 1 to 0.
    """

    def factor(epoch: int) -> float:
        return 0.5 * (1 + math.cos(math.pi * min(epoch / max_epochs, 1.0)))

    return factor


class ClipGradients:
    """Clips the gradients of every step to a maximum norm, as in the authors' code.

    Args:
        network: the network in training.
        max_norm: maximum Euclidean norm over all gradients together.
    """

    def __init__(self, network: torch.nn.Module, max_norm: float = 1.0) -> None:
        self.network = network
        self.max_norm = max_norm

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._clip)

    def _clip(self, engine: Engine) -> None:
        if getattr(engine, "scaler", None) is not None:
            engine.scaler.unscale_(engine.optimizer)  # otherwise the scaled gradients would be clipped
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.max_norm)


class KeepLossOnly:
    """Replaces the output of a training step by ``[{"loss": loss}]``, the form that MONAI's logging handlers expect.

    MONAI makes such lists by decollating the output, which fails for the lists of logits of a pyramid. With another
    form ``TensorBoardStatsHandler`` skips the loss with a warning, and ``MLFlowHandler`` fails.
    """

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._reduce)

    def _reduce(self, engine: Engine) -> None:
        engine.state.output = [{"loss": engine.state.output["loss"].detach()}]


@cache
def has_tensorboard() -> bool:
    """Whether this process writes TensorBoard's curves: it is installed, and the rank is 0. For ``_disabled_``.

    Logs a warning once if TensorBoard is not installed.
    """
    _, is_installed = optional_import("tensorboard")
    if not is_installed:
        logger.warning("tensorboard is not installed: no curves (pip install 'rare-unet-networks[train]')")
    return is_installed and idist.get_rank() == 0


class ProgressBar:
    """Progress bar of tqdm with the remaining time and, in training, the loss.

    Without tqdm it logs a warning and does nothing.

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
