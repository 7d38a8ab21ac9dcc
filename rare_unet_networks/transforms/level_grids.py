"""Resamples labelled scans of any voxel size to the grids of the levels that train them or that score them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Transform
from torch.nn import functional as F

from ..levels import ResolutionLevels
from ..utils.coarsening import coarsen_label
from ..utils.geometry import rescaled_affine, spacing_of, symmetric_margins, symmetric_pad
from ..utils.logs import name_of
from ..utils.resampling import as_plain_tensor, resample
from .acquisition import profile_weights, sample_label

__all__ = ["FineLabeld", "ResampleToLabelLeveld", "ResampleToLeveld"]

LABEL_LEVEL = "label_level"  # key of the finest level that a scan's label trains


def label_on_size(label: MetaTensor, spatial_size: Sequence[int]) -> MetaTensor:
    """Returns the most frequent class in each voxel of a grid over the same extent; linear where it is finer.

    Args:
        label: class indices, shape (1, *spatial_size).
        spatial_size: voxels of the result.
    """
    given = tuple(label.shape[1:])
    weights: list[torch.Tensor | None] = []
    for n, m in zip(given, spatial_size):
        centres = (torch.arange(m, dtype=torch.float64) + 0.5) * n / m - 0.5
        weights.append(None if n == m else profile_weights(n, centres, n / m, "box"))
    resampled = MetaTensor(sample_label(label, weights)).copy_meta_from(label)
    resampled.affine = rescaled_affine(label.affine, given, spatial_size)
    return resampled


class ResampleToLabelLeveld(Transform):
    """Resamples a labelled scan to the grid of the finest level that its label trains, and notes the level.

    The image is resampled as by the inferer; the label gets the most frequent class of each voxel. Axes within the
    tolerance keep their voxels, so a scan with the voxels of a level is not changed. The level stands under
    ``label_level``: :py:class:`rare_unet_networks.transforms.MultiResolutionPyramidd` makes the pyramid from there on.

    Args:
        levels: the resolution levels of the task; ``level_of_label`` decides.
        image_key: scan, shape (C, *spatial_size), normalised.
        label_key: label, shape (1, *spatial_size), on the scan's grid.

    Raises:
        ValueError: if the network has no level for a label as coarse as that. The message names the file.
    """

    def __init__(self, levels: ResolutionLevels, image_key: str = "image", label_key: str = "label") -> None:
        self.levels = levels
        self.image_key, self.label_key = image_key, label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        image, label = d[self.image_key], d[self.label_key]
        given = tuple(image.shape[1:])
        spacing = spacing_of(image.affine, len(given))
        try:
            level = self.levels.level_of_label(spacing)
        except ValueError as error:
            raise ValueError(f"{name_of(label.meta)}: {error}") from None
        size = self.levels.resampled_size(given, spacing, level)
        if size != given:
            resampled = MetaTensor(resample(as_plain_tensor(image)[None].float(), size)[0]).copy_meta_from(image)
            resampled.affine = rescaled_affine(image.affine, given, size)
            d[self.image_key], d[self.label_key] = resampled, label_on_size(label, size)
        d[LABEL_LEVEL] = level
        return d


class FineLabeld(Transform):
    """Adds the label on the grid of level 0 as ``label_fine``, if the label is as fine as that; otherwise nothing.

    Args:
        levels: the resolution levels of the task; ``is_fine`` decides.
        label_key: label, shape (1, *spatial_size); ``<label_key>_fine`` is added.
    """

    def __init__(self, levels: ResolutionLevels, label_key: str = "label") -> None:
        self.levels = levels
        self.label_key = label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        label = d[self.label_key]
        given = tuple(label.shape[1:])
        spacing = spacing_of(label.affine, len(given))
        if self.levels.is_fine(spacing):
            size = self.levels.resampled_size(given, spacing, 0)
            d[f"{self.label_key}_fine"] = label.clone() if size == given else label_on_size(label, size)
        return d


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
