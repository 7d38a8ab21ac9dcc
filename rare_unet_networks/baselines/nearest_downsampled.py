"""The paper's nearest-neighbour rule for labels, applied to a prediction."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from ..utils.geometry import format_size

__all__ = ["NearestDownsampled"]


class NearestDownsampled(MapTransform):
    """Downsamples a segmentation as the paper downsamples labels: the first voxel of each block is kept.

    That voxel lies half a block away from the block's centre.

    Args:
        keys: class indices, shape (1, D, H, W), on the grid of ``like`` or one finer by an integer factor.
        like: key of a label that was downsampled by this rule; it sets the spatial size.
        name: key of the result.

    Raises:
        ValueError: If the sizes are not multiples.
    """

    def __init__(self, keys: KeysCollection, like: str, name: str) -> None:
        super().__init__(keys)
        self.like = like
        self.name = name

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.keys:
            fine, coarse = d[key].shape[1:], d[self.like].shape[1:]
            steps = [n // m for n, m in zip(fine, coarse)]
            if any(m * step != n for n, m, step in zip(fine, coarse, steps)):
                raise ValueError(
                    f"{key} must have a multiple of {format_size(coarse)} voxels, got {format_size(fine)}."
                )
            d[self.name] = d[key][(..., *(slice(None, None, step) for step in steps))]
        return d
