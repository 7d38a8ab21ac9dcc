"""A baseline that looks at no image: the mean of the training labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.inferers import Inferer
from monai.networks.utils import one_hot
from monai.transforms import Compose, LoadImage, Orientation, ResizeWithPadOrCrop

from ..data.readers import HeaderPreservingNibabelReader
from ..inferers.base import note_route
from ..levels import ResolutionLevels
from ..utils.geometry import format_size, symmetric_core
from ..utils.resampling import copy_meta_like

__all__ = ["MeanShapeInferer"]


class MeanShapeInferer(Inferer):
    """Predicts the mean training label, centred on the scan, without looking at the image.

    A network that scores no better has learned only where the structure usually lies in a crop.

    Args:
        levels: the resolution levels of the task; the mean shape is on the grid of level 0.
        data: items with ``label`` (path), the training labels.
        num_classes: classes, background included.
        spatial_size: voxels of the mean shape, larger than any scan.
    """

    def __init__(
        self,
        levels: ResolutionLevels,
        data: Sequence[dict],
        num_classes: int,
        spatial_size: Sequence[int] = (96, 96, 96),
    ) -> None:
        super().__init__()
        self.levels = levels
        read = Compose(
            [
                LoadImage(HeaderPreservingNibabelReader, ensure_channel_first=True),
                Orientation("RAS", labels=None),
                ResizeWithPadOrCrop(spatial_size),
            ]
        )
        maps = (one_hot(read(item["label"]).as_tensor(), num_classes, dim=0) for item in data)
        self.mean = sum(maps) / len(data)  # (classes, *spatial_size), shares of the training labels

    def __call__(self, inputs: torch.Tensor, network: Any = None, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Predicts the mean shape.

        Args:
            inputs: shape (B, C, *spatial_size); only size and spacing are used.
            network: not used.
            args: not used.
            kwargs: not used.

        Returns:
            logarithms of the shares, shape (B, classes, *spatial_size), on the grid of level 0.
        """
        route = self.levels.route(inputs)
        fine, size = route.fine_size, self.mean.shape[1:]
        if any(n > m for n, m in zip(fine, size)):
            raise ValueError(f"spatial_size must be at least the scan's {format_size(fine)}, got {format_size(size)}.")
        window = self.mean[(..., *symmetric_core(fine, size))].clamp(min=1e-6).log()
        return note_route(copy_meta_like(window.expand(len(inputs), *window.shape), inputs), route)
