"""Training cases of the paper's U-Net+Aug: scans of several resolutions, each restored to full size (section 4.2)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTransform, ResizeWithPadOrCrop
from monai.utils import ensure_tuple
from torch.nn import functional as F

from ..levels import level_scale
from ..utils.geometry import LINEAR, symmetric_core
from ..utils.resampling import as_plain_tensor

__all__ = ["RandResolutionLeveld", "RestoreResolutiond", "coarsened_labels"]


def coarsened_labels(labels: str, back: str) -> list[str]:
    """Returns the keys of the labels that are coarsened with their scans, for the configs of U-Net+Aug.

    Args:
        labels: ``"coarse"`` (the paper's) or ``"full"``, the untouched 1 mm label.
        back: how scans are restored to full size, see :py:class:`RestoreResolutiond`.

    Raises:
        ValueError: If ``labels`` is another name, or ``"full"`` with padded scans: the label would not lie on the scan.
    """
    if labels not in ("coarse", "full"):
        raise ValueError(f"augment_labels must be 'coarse' or 'full', got {labels!r}.")
    if labels == "full" and back == "pad":
        raise ValueError("augment_labels must be 'coarse' where augment_back is 'pad', got 'full'.")
    return ["label"] if labels == "coarse" else []


class RandResolutionLeveld(RandomizableTransform):
    """Draws the level of a training case (paper, section 4.2): one of ``levels`` with probability ``prob``, else 0.

    Args:
        levels: the coarse levels, equally likely.
        prob: probability of a coarse level.
        level_key: where the level is written, for :py:class:`rare_unet_networks.transforms.SimulateLowResolutiond`.
    """

    def __init__(self, levels: Sequence[int] = (1, 2, 3), prob: float = 0.5, level_key: str = "level") -> None:
        super().__init__(prob)
        self.levels = tuple(levels)
        self.level_key = level_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        self.randomize(None)
        level = self.levels[self.R.randint(len(self.levels))] if self._do_transform else 0
        return {**data, self.level_key: level}


class RestoreResolutiond(MapTransform):
    """Restores the original size of a coarsened training case, for a plain U-Net (paper, section 4.2).

    ``how="up"`` interpolates images linearly and repeats label voxels; ``how="pad"`` pads both with zeros on all sides.
    An image or label that already has the size is not changed.

    Args:
        image_keys: images, shape (C, D, H, W).
        label_keys: labels, shape (1, D, H, W).
        like: key of an image or label that kept the original size.
        how: ``"up"`` or ``"pad"``.
        level_key: where the level is written in the data.

    Raises:
        ValueError: If ``how`` is another word.
    """

    def __init__(
        self,
        image_keys: KeysCollection,
        label_keys: KeysCollection,
        like: str,
        how: str = "up",
        level_key: str = "level",
    ) -> None:
        super().__init__(image_keys)
        if how not in ("up", "pad"):
            raise ValueError(f"how must be 'up' or 'pad', got {how!r}.")
        self.label_keys = ensure_tuple(label_keys)
        self.like = like
        self.how = how
        self.level_key = level_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        size, scale = tuple(d[self.like].shape[1:]), level_scale(int(d[self.level_key]))
        for key in (*self.keys, *self.label_keys):
            x = as_plain_tensor(d[key])
            if tuple(x.shape[1:]) == size:
                continue
            if self.how == "up":
                mode = LINEAR[len(size)] if key in self.keys else "nearest"
                x = F.interpolate(x[None], scale_factor=scale, mode=mode)[0]
                x = x[(..., *symmetric_core(size, x.shape[1:]))]
            else:
                # A scan that was padded before it was coarsened may be larger than the case by a voxel or so.
                x = ResizeWithPadOrCrop(size, mode="constant", value=0)(x)
            d[key] = MetaTensor(x).copy_meta_from(d[self.like])
        return d
