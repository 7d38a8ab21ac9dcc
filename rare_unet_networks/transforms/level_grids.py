"""Resamples a training scan of any voxel size to the grids of a level."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Transform
from torch.nn import functional as F

from ..levels import ResolutionLevels
from ..utils.coarsening import coarsen_label
from ..utils.geometry import rescaled_affine, spacing_of, symmetric_margins, symmetric_pad
from ..utils.resampling import as_plain_tensor, resample
from .acquisition import profile_weights, sample_label

__all__ = ["ResampleToLeveld"]


class ResampleToLeveld(Transform):
    """Resamples and pads scan and label for a training step at one level, as the inferer does.

    ``image`` and ``label`` become ``image_2``, ``label_2`` and ``label_0`` (of level 2): the scan on the level's grid,
    the label on that grid (majority) and on level 0's over the same extent, on which the level's fine head predicts.

    Args:
        levels: the resolution levels of the task.
        image_key: scan, shape (C, *spatial_size), normalised, because it is padded with 0.
        label_key: label, shape (1, *spatial_size), on any grid with the scan's axes.
        level_key: key of the level in the data.
    """

    def __init__(
        self, levels: ResolutionLevels, image_key: str = "image", label_key: str = "label", level_key: str = "level"
    ) -> None:
        self.levels = levels
        self.image_key, self.label_key, self.level_key = image_key, label_key, level_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d, level = dict(data), int(data[self.level_key])
        image, label = d.pop(self.image_key), d.pop(self.label_key)
        given = tuple(image.shape[1:])
        size = self.levels.resampled_size(given, spacing_of(image.affine, len(given)), level)
        padded_size = self.levels.padded_size(size, level)
        scale = self.levels.scale(level)
        fine_size = [n * s for n, s in zip(size, scale)]
        margins = [(before * s, after * s) for (before, after), s in zip(symmetric_margins(size, padded_size), scale)]

        x = symmetric_pad(resample(as_plain_tensor(image)[None].float(), size), padded_size, 0.0)[0]
        fine = self._label_on(label, rescaled_affine(image.affine, given, fine_size), fine_size)
        fine = F.pad(fine, [w for pair in reversed(margins) for w in pair])  # F.pad starts at the last axis
        d[f"{self.image_key}_{level}"] = x
        d[f"{self.label_key}_{level}"] = coarsen_label(fine, scale)
        d[f"{self.label_key}_0"] = fine
        return d

    @staticmethod
    def _label_on(label: MetaTensor, affine: torch.Tensor, spatial_size: list[int]) -> torch.Tensor:
        """Samples the label at the voxel centres of another grid, with linear weights."""
        to_label = torch.linalg.inv(label.affine.double()) @ affine.double()
        weights = []
        for axis, n in enumerate(spatial_size):
            centres = to_label[axis, -1] + to_label[axis, axis] * torch.arange(n, dtype=torch.float64)
            weights.append(profile_weights(label.shape[1 + axis], centres, 1.0, "gaussian"))
        return sample_label(as_plain_tensor(label), weights)
