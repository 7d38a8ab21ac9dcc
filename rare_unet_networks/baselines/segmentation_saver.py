"""A handler that saves the segmentations that an evaluation scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ignite.engine import Engine, Events
from monai.transforms import SaveImage

from ..data.writers import HeaderPreservingNibabelWriter
from ..levels import format_scale

__all__ = ["SegmentationSaver"]


class SegmentationSaver:
    """Saves the scored segmentations as ``native/<scale>/<case>.nii.gz`` and, at 1 mm, ``full/<scale>/<case>.nii.gz``.

    :py:class:`rare_unet_networks.baselines.PredictionsInferer` reads the same folders.

    Args:
        output_dir: folder in which the two folders are created.
    """

    def __init__(self, output_dir: str) -> None:
        self.output_dir = Path(output_dir)
        options = dict(output_ext=".nii.gz", output_dtype=np.uint8, resample=False, print_log=False)
        self.save = SaveImage(writer=HeaderPreservingNibabelWriter, **options)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)

    def iteration_completed(self, engine: Engine) -> None:
        for batch, output in zip(engine.state.batch, engine.state.output or []):
            for grid, key in (("native", "pred"), ("full", "pred_fine")):
                path = self.output_dir / grid / format_scale(int(batch["level"])) / batch["case"]
                path.parent.mkdir(parents=True, exist_ok=True)
                self.save(output[key], filename=path)
