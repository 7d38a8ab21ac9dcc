"""An inferer that reads segmentations of other programs, so that this project can score them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.networks.utils import one_hot
from monai.transforms import Compose, LoadImage, Orientation, SpatialResample

from ..data.datalists import case_id
from ..data.readers import HeaderPreservingNibabelReader
from ..inferers.base import note_route
from ..levels import ResolutionLevels, format_scale
from ..utils.geometry import rescaled_affine
from ..utils.resampling import copy_meta_like

__all__ = ["PredictionsInferer"]


class PredictionsInferer(Inferer):
    """Reads predictions from files that any program wrote, to score them like those of this project.

    Args:
        levels: the resolution levels of the task, which give the scale of a scan.
        folder: contains ``<scale>/<case>.nii.gz``, scale 1, 0.5, 0.25 or 0.125, on the coarse scan's grid or on the
            grid of level 0 (see :py:class:`ResampleToBothGridsd`). A segmentation of another size is resampled to the
            grid of level 0 by its affine.
        num_classes: classes, background included.
    """

    def __init__(self, levels: ResolutionLevels, folder: str, num_classes: int) -> None:
        super().__init__()
        self.levels = levels
        self.folder = Path(folder)
        self.num_classes = num_classes
        self.read = Compose(
            [LoadImage(HeaderPreservingNibabelReader, ensure_channel_first=True), Orientation("RAS", labels=None)]
        )

    def __call__(self, inputs: MetaTensor, network: Any = None, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Reads the prediction of one scan.

        Args:
            inputs: a batch of one scan with the name of its file.
            network: not used.
            args: not used.
            kwargs: not used.

        Returns:
            logits, shape (1, classes, *spatial_size), on the file's grid; the softmax is almost one-hot.

        Raises:
            ValueError: If the file is missing or contains other labels.
        """
        name, route = inputs.meta["filename_or_obj"], self.levels.route(inputs)
        case = case_id(name if isinstance(name, str) else name[0])
        path = self.folder / format_scale(route.level) / f"{case}.nii.gz"
        if not path.exists():
            raise ValueError(f"there is no prediction {path}.")
        labels = self.read(path)
        if tuple(labels.shape[1:]) not in (route.spatial_size, route.fine_size):
            affine = rescaled_affine(inputs[0].affine, route.spatial_size, route.fine_size)
            labels = SpatialResample(mode="nearest", padding_mode="zeros")(labels, affine, route.fine_size)
        labels = labels.as_tensor()
        if not set(labels.unique().tolist()) <= set(range(self.num_classes)):
            raise ValueError(f"{path} must hold 0 to {self.num_classes - 1} only, got {labels.unique().tolist()}.")
        return note_route(copy_meta_like(100 * one_hot(labels, self.num_classes, dim=0)[None], inputs), route)
