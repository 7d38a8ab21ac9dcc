"""MONAI dictionary transforms for scans and labels at several resolutions.

Coarse scans are made as in the paper (Albertsen et al. 2025, sections 3.2 and 4.2), with two differences by default.
An image voxel is the mean of its block, because a scanner averages; the paper interpolates. A label voxel is the
majority of its block. The paper's nearest-neighbour labels take the first voxel of each block, which shifts the label
by half a block against the image; they remain an option, for comparison.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import DivisiblePad, MapTransform, Randomizable
from monai.utils import ensure_tuple, ensure_tuple_rep

from ..levels import ResolutionLevels, level_scale
from ..utils.coarsening import IMAGE_MODES, LABEL_MODES, coarsen, coarsen_label
from ..utils.geometry import spacing_of
from ..utils.logs import name_of
from .level_grids import LABEL_LEVEL

__all__ = ["MultiResolutionPyramidd", "PadPyramidd", "SimulateLowResolutiond"]


def _check_modes(image_mode: str = "mean", label_mode: str = "majority") -> None:
    if not isinstance(image_mode, str) or image_mode not in IMAGE_MODES:
        raise ValueError(f"mode of images must be one of {IMAGE_MODES}, got {image_mode!r}.")
    if label_mode not in LABEL_MODES:
        raise ValueError(f"mode of labels must be one of {LABEL_MODES}, got {label_mode!r}.")


class _Coarsening(MapTransform):
    """Base class of the two transforms below: pads images and labels and coarsens them."""

    def __init__(
        self,
        image_keys: KeysCollection,
        label_keys: KeysCollection,
        divisor: int,
        image_mode: str,
        label_mode: str | Sequence[str],
    ) -> None:
        super().__init__(image_keys)
        self.label_keys = ensure_tuple(label_keys)
        self.label_modes = ensure_tuple_rep(label_mode, max(1, len(self.label_keys)))
        for mode in self.label_modes:
            _check_modes(image_mode, mode)
        self.divisor = divisor
        self.image_mode = image_mode

    def coarse(
        self, data: Mapping[Hashable, MetaTensor], levels: Sequence[int], first: int = 0
    ) -> dict[Hashable, list[MetaTensor]]:
        """Pads every image and label and coarsens them to each of ``levels``; a list by key.

        Args:
            data: images and labels.
            levels: ``first`` and coarser ones.
            first: level whose voxels the images and labels have.
        """
        scales = [level_scale(level - first) for level in levels]
        divisor = max(1, self.divisor // level_scale(first))  # the same in mm
        scans = {}
        for key in self.keys:
            image, lowest = data[key], float(data[key].min())
            options = dict(pad_value=lowest, mode=self.image_mode, divisor=divisor)
            scans[key] = [coarsen(image, scale, **options) for scale in scales]
        for key, mode in zip(self.label_keys, self.label_modes):
            scans[key] = [coarsen_label(data[key], scale, mode, divisor) for scale in scales]
        return scans


class SimulateLowResolutiond(_Coarsening):
    """Simulates a coarse scan from a fine one: pads it symmetrically to a multiple of ``divisor`` and coarsens it.

    The level is read from the data (``level_key``), so that one dataset can hold a case at several scales. Images are
    padded with their minimum, labels with background. At the scan's own level nothing is changed.

    Args:
        image_keys: images, shape (C, D, H, W).
        label_keys: labels, shape (1, D, H, W).
        level_key: key of the level.
        divisor: sizes are padded to multiples of this number of voxels.
        image_mode: see :py:func:`rare_unet_networks.utils.coarsening.coarsen`.
        label_mode: see :py:func:`rare_unet_networks.utils.coarsening.coarsen_label`; one for all, or one each.
        levels: resolution levels, which say what level the given scan has; by default it has level 0.

    Raises:
        ValueError: if the level is finer than the scan's own. The message names the file.
    """

    def __init__(
        self,
        image_keys: KeysCollection,
        label_keys: KeysCollection = (),
        level_key: str = "level",
        divisor: int = 8,
        image_mode: str = "mean",
        label_mode: str | Sequence[str] = "majority",
        levels: ResolutionLevels | None = None,
    ) -> None:
        super().__init__(image_keys, label_keys, divisor, image_mode, label_mode)
        self.level_key = level_key
        self.levels = levels

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d, level = dict(data), int(data[self.level_key])
        given = d[self.keys[0]]
        first = 0
        if self.levels is not None:
            first = self.levels.level_of_spacing(spacing_of(given.affine, given.ndim - 1))
        if level < first:
            raise ValueError(f"{name_of(given.meta)}: {self.level_key} must be at least its own, {first}, got {level}.")
        if level == first:
            return d
        for key, (scan,) in self.coarse(d, [level], first).items():
            # The result stands for a scan loaded from a coarse file, so Invertd must not go back to the fine one.
            scan.applied_operations = []
            d[key] = scan
        return d


class MultiResolutionPyramidd(Randomizable, _Coarsening):
    """Makes the pyramid of a training step: replaces ``image`` by ``image_0`` … ``image_3``, and ``label`` likewise.

    Images and labels are first padded symmetrically to a multiple of ``divisor`` voxels, images with their minimum,
    labels with background. Image and label of a level have the same grid and affine. Next scale the intensities of each
    level, and last pad to what the network can process: the inferer also pads after scaling.

    A scan whose label is coarser, as :py:class:`rare_unet_networks.transforms.ResampleToLabelLeveld` notes under
    ``label_level``, gets a pyramid of that level and coarser ones, without level 0.

    Args:
        image_keys: images, shape (C, D, H, W).
        label_keys: labels, shape (1, D, H, W).
        levels: levels of the pyramid. Labels are always made of level 0, too, for predictions on its grid.
        divisor: sizes are padded to multiples of this number of voxels, as in :py:class:`SimulateLowResolutiond`.
        image_mode: see :py:func:`rare_unet_networks.utils.coarsening.coarsen`; one of several is drawn for each case.
        label_mode: see :py:func:`rare_unet_networks.utils.coarsening.coarsen_label`.

    Raises:
        ValueError: if none of ``levels`` is as coarse as the label. The message names the file.
    """

    def __init__(
        self,
        image_keys: KeysCollection,
        label_keys: KeysCollection,
        levels: Sequence[int] = (0, 1, 2, 3),
        divisor: int = 8,
        image_mode: str | Sequence[str] = "mean",
        label_mode: str = "majority",
    ) -> None:
        self.image_modes = ensure_tuple(image_mode)
        for mode in self.image_modes:
            _check_modes(image_mode=mode)
        _Coarsening.__init__(self, image_keys, label_keys, divisor, self.image_modes[0], label_mode)
        self.levels = levels

    def randomize(self, data: None = None) -> None:
        """Draws the mode by which images are coarsened."""
        self.image_mode = self.image_modes[self.R.randint(len(self.image_modes))]

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        self.randomize()
        first = int(d.get(LABEL_LEVEL, 0))
        image_levels = [level for level in self.levels if level >= first]
        if not image_levels:
            raise ValueError(
                f"{name_of(d[self.keys[0]].meta)}: its label is too coarse, it trains level {first} and coarser ones, "
                f"the training has {list(self.levels)}."
            )
        levels = sorted({0, *image_levels}) if first == 0 else sorted(image_levels)
        for key, scans in self.coarse(d, levels, first).items():
            del d[key]
            levels_of_key = levels if key in self.label_keys else image_levels
            for level, scan in zip(levels, scans):
                if level in levels_of_key:
                    d[f"{key}_{level}"] = scan
        return d


class PadPyramidd(MapTransform):
    """Pads each level of a pyramid, at the end of each axis, to a size that the network can process.

    Args:
        levels: resolution levels of the task; ``image_0``, ``label_0``, … are padded to multiples of their ``divisor``.
        keys: names without the level. Levels that the pyramid does not have are skipped.
    """

    def __init__(self, levels: ResolutionLevels, keys: KeysCollection = ("image", "label")) -> None:
        super().__init__(keys)
        self.pads = [DivisiblePad(levels.divisor(level), method="end") for level in range(levels.num_levels)]

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for level, pad in enumerate(self.pads):
            for name in self.keys:
                key = f"{name}_{level}"
                if key in d:
                    d[key] = pad(d[key])
        return d
