"""Handler that loads weights when a run starts."""

from __future__ import annotations

import logging

from ignite.engine import Engine
from monai.handlers import CheckpointLoader

from ..networks.weights import load_weights

__all__ = ["WeightsLoader"]

logger = logging.getLogger(__name__)


class WeightsLoader(CheckpointLoader):
    """``monai.handlers.CheckpointLoader`` of weights, see :py:func:`rare_unet_networks.networks.load_weights`.

    Arguments as in MONAI.
    """

    def __call__(self, engine: Engine) -> None:
        for network in self.load_dict.values():
            load_weights(self.load_path, network, self.map_location)
        logger.info(f"weights of {self.load_path}")
