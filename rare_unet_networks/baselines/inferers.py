"""What the figures of the network are to be held against: rival ways to use a plain U-Net, and no network at all.

The paper's *Up* needs no class: it is :py:class:`rare_unet_networks.ResolutionRoutingInferer` with a single level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.networks.utils import one_hot
from monai.transforms import (
    Compose,
    LoadImage,
    Orientation,
    ResizeWithPadOrCrop,
    SpatialPad,
    SpatialResample,
)

from .datalists import case_name
from .geometry import by, rescaled_affine, symmetric_core
from .levels import Levels, scale_name
from .resampling import like_scan

__all__ = ["MeanShapeInferer", "PadInferer", "PredictionsInferer"]


class MeanShapeInferer(Inferer):
    """Answers every scan with the mean shape: the training labels averaged, centre on centre; no image is looked at.

    A segmentation that scores near it has learned nothing but where crops are usually taken.

    Args:
        levels: the resolution levels of the task; the mean shape lives at level 0.
        data: items with ``label`` (path), the training labels.
        num_classes: classes, background included.
        spatial_size: voxels of the mean shape, larger than any scan.
    """

    def __init__(
        self, levels: Levels, data: Sequence[dict], num_classes: int, spatial_size: Sequence[int] = (96, 96, 96)
    ) -> None:
        super().__init__()
        self.levels = levels
        read = Compose(
            [
                LoadImage(ensure_channel_first=True),
                Orientation("RAS", labels=None),
                ResizeWithPadOrCrop(spatial_size),
            ]
        )
        maps = (one_hot(read(item["label"]).as_tensor(), num_classes, dim=0) for item in data)
        self.mean = sum(maps) / len(data)  # (classes, *spatial_size), shares of the training labels

    def route(self, inputs: torch.Tensor) -> Any:
        """As :py:meth:`rare_unet_networks.ResolutionRoutingInferer.route`."""
        return self.levels.route(inputs)

    def __call__(self, inputs: torch.Tensor, network: Any = None, *args: Any, **kwargs: Any) -> torch.Tensor:
        """
        Args:
            inputs: shape (B, C, *spatial_size); only size and spacing count.
            network: not used.
            args: not used.
            kwargs: not used.

        Returns:
            logarithms of the shares, shape (B, classes, *spatial_size), on the grid of level 0.
        """
        route = self.route(inputs)
        fine, size = route.full_size, self.mean.shape[1:]
        if any(n > m for n, m in zip(fine, size)):
            raise ValueError(f"spatial_size must be at least the scan's {by(fine)}, got {by(size)}.")
        window = self.mean[(..., *symmetric_core(fine, size))].clamp(min=1e-6).log()
        return like_scan(window.expand(len(inputs), *window.shape), inputs)


class PadInferer(Inferer):
    """The paper's *Pad*: a coarse scan, as it is, in the middle of an empty scan of full size, for a plain U-Net.

    Args:
        levels: a single level with a ``spatial_size``, the full size; a larger scan is padded to fit the network.

    Raises:
        ValueError: when ``levels`` has no ``spatial_size``.
    """

    def __init__(self, levels: Levels) -> None:
        super().__init__()
        if levels.spatial_size is None:
            raise ValueError("levels must have a spatial_size to pad to, got none.")
        self.levels = levels

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """
        Args:
            inputs: shape (B, C, *spatial_size).
            network: called as ``network(x, *args, **kwargs)``, must keep the grid of ``x``.
            args: further positional arguments of the network.
            kwargs: further keyword arguments of the network.

        Returns:
            logits, shape (B, classes, *spatial_size), on the inputs' grid.
        """
        size = tuple(inputs.shape[2:])
        full = [max(n, m) for n, m in zip(size, self.levels.spatial_size)]
        pad = SpatialPad(self.levels.padded_size(full, level=0), mode="constant", value=0)
        x = torch.stack([pad(image).as_tensor() for image in inputs])
        logits = network(x, *args, **kwargs)[(..., *symmetric_core(size, x.shape[2:]))]
        return like_scan(logits, inputs)


class PredictionsInferer(Inferer):
    """Answers with label maps that lie in files, of whatever program: to score them as our own answers are scored.

    Args:
        levels: the resolution levels of the task, which tell the scale of a scan.
        folder: holds ``<scale>/<case>.nii.gz``, scale 1, 0.5, 0.25 or 0.125, with the size of the coarse scan's grid or
            of that of level 0 (see :py:class:`rare_unet_networks.BothGridsd`); a map of another size is put on the
            latter by its affine.
        num_classes: classes, background included.
    """

    def __init__(self, levels: Levels, folder: str, num_classes: int) -> None:
        super().__init__()
        self.levels = levels
        self.folder = Path(folder)
        self.num_classes = num_classes
        self.read = Compose([LoadImage(ensure_channel_first=True), Orientation("RAS", labels=None)])

    def __call__(self, inputs: MetaTensor, network: Any = None, *args: Any, **kwargs: Any) -> torch.Tensor:
        """
        Args:
            inputs: a batch of one scan with the name of its file.
            network: not used.
            args: not used.
            kwargs: not used.

        Returns:
            logits as good as certain of the file's labels, shape (1, classes, *spatial_size), on the file's grid.

        Raises:
            ValueError: when the file is missing or holds other labels.
        """
        name, route = inputs.meta["filename_or_obj"], self.levels.route(inputs)
        case = case_name(name if isinstance(name, str) else name[0])
        path = self.folder / scale_name(route.level) / f"{case}.nii.gz"
        if not path.exists():
            raise ValueError(f"there is no prediction {path}.")
        labels = self.read(path)
        if tuple(labels.shape[1:]) not in (route.spatial_size, route.full_size):
            affine = rescaled_affine(inputs[0].affine, route.spatial_size, route.full_size)
            labels = SpatialResample(mode="nearest", padding_mode="zeros")(labels, affine, route.full_size)
        labels = labels.as_tensor()
        if not set(labels.unique().tolist()) <= set(range(self.num_classes)):
            raise ValueError(f"{path} must hold 0 to {self.num_classes - 1} only, got {labels.unique().tolist()}.")
        return 100 * one_hot(labels, self.num_classes, dim=0)[None]
