"""Handler for Weights & Biases, which MONAI lacks: it attaches Ignite's logger to MONAI's engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ignite.engine import Engine, Events
from ignite.handlers.wandb_logger import WandBLogger
from monai.utils import is_scalar

__all__ = ["WandBHandler"]


class WandBHandler:
    """Logs an engine's metrics after every epoch and its loss after every iteration, like MONAI's ``MLFlowHandler``.

    Both are logged with the number of their epoch or iteration, as the horizontal axis of curves. For ``--tracking``
    see ``configs/tracking_wandb.json`` of the bundles.

    Args:
        output_transform: function that gets the loss from ``engine.state.output``; by default no loss is logged.
        tag_name: name of the loss.
        close_on_complete: whether to finish the run when the engine completes.
        options: options of ``wandb.init``; with ``init=False`` the run of another handler is used.

    Raises:
        ModuleNotFoundError: if wandb is not installed.
    """

    def __init__(
        self,
        output_transform: Callable[[Any], Any] | None = None,
        tag_name: str = "train_loss",
        close_on_complete: bool = False,
        **options: Any,
    ) -> None:
        self.output_transform = output_transform
        self.tag_name = tag_name
        self.close_on_complete = close_on_complete
        self.logger = WandBLogger(**options)

    def attach(self, engine: Engine) -> None:
        if self.output_transform is not None:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)
        if self.close_on_complete:
            engine.add_event_handler(Events.COMPLETED, self.logger.close)

    def iteration_completed(self, engine: Engine) -> None:
        loss = float(self.output_transform(engine.state.output))
        self.logger.log({self.tag_name: loss, "iteration": engine.state.iteration})

    def epoch_completed(self, engine: Engine) -> None:
        metrics = {name: float(value) for name, value in engine.state.metrics.items() if is_scalar(value)}
        if metrics:
            self.logger.log({**metrics, "epoch": engine.state.epoch})
