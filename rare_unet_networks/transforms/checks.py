"""Checks of scans and labels after loading, before anything is computed from them."""

from __future__ import annotations

import logging
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.transforms.utils_pytorch_numpy_unification import percentile
from nibabel.affines import obliquity

from ..utils.errors import RefusedError
from ..utils.geometry import FIELDS_OF_VIEW, format_size, is_near_spacing, is_whole_head, spacing_of
from ..utils.logs import name_of
from ..utils.quality import add_warning

__all__ = ["CheckLabeld", "CheckScand"]

logger = logging.getLogger(__name__)


def _warn(tensor: MetaTensor, text: str) -> None:
    """Logs a warning and adds it to the metadata, from which it reaches the record of the prediction."""
    logger.warning(f"{name_of(tensor.meta)}: {text}")
    add_warning(tensor.meta, text)


@contextmanager
def _file_in_errors(tensor: MetaTensor) -> Iterator[None]:
    """Prefixes an error with the file name; otherwise a training would not say which file failed."""
    try:
        yield
    except RefusedError:
        raise
    except ValueError as error:
        raise ValueError(f"{name_of(tensor.meta)}: {error}") from None


class CheckScand(MapTransform):
    """Rejects scans that the network cannot segment, and warns of those that it may segment wrongly.

    Warnings are also added to the scan's metadata, see :py:class:`ReviewPredictiond`.

    Args:
        keys: scans, shape (C, D, H, W), as loaded.
        channels: expected number of channels.
        spatial_dims: expected number of spatial axes.
        max_extent: warn if the field of view is longer than this on an axis, mm.
        field_of_view: ``"head"``, ``"crop"``, or ``"auto"``: a scan longer than ``max_extent`` is a whole head. Of a
            whole head neither its extent nor its obliquity is warned of.
        max_foreground: warn if the foreground has more volume than this, litres: probably a head with its skull where a
            brain without skull is expected. Foreground is brighter than a twentieth of the range of intensities. Warn
            also if the voxels that are not 0 have more volume: the background should be 0.
        refuse: do not warn of more foreground than ``max_foreground``, but refuse the scan.
        max_obliquity: warn if an axis of the scan is rotated by this angle or more from the nearest axis of the body,
            degrees.
        empty_channels: whether to accept channels without contrast, that is missing modalities, if at least one channel
            has contrast.

    Raises:
        ValueError: if the number of channels or axes is wrong, a voxel is not finite, there is no contrast, or the
            spacing of the affine is 0, NaN or infinite.
        RefusedError: if there is too much foreground and ``refuse`` is set.
    """

    def __init__(
        self,
        keys: KeysCollection,
        channels: int = 1,
        spatial_dims: int = 3,
        max_extent: float | None = None,
        field_of_view: str = "crop",
        max_foreground: float | None = None,
        refuse: bool = False,
        max_obliquity: float | None = 20.0,
        empty_channels: bool = False,
    ) -> None:
        super().__init__(keys)
        self.channels = channels
        self.spatial_dims = spatial_dims
        self.max_extent = max_extent
        if field_of_view not in FIELDS_OF_VIEW:
            raise ValueError(f"field_of_view must be one of {FIELDS_OF_VIEW}, got {field_of_view!r}.")
        self.field_of_view = field_of_view
        self.max_foreground = max_foreground
        self.refuse = refuse
        self.max_obliquity = max_obliquity
        self.empty_channels = empty_channels

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        for key in self.keys:
            with _file_in_errors(data[key]):
                self._check(data[key])
        return dict(data)

    def _check(self, scan: MetaTensor) -> None:
        if scan.ndim != self.spatial_dims + 1:
            raise ValueError(
                f"expected {self.spatial_dims} spatial axes, got a scan of shape {format_size(scan.shape[1:])}"
            )
        if scan.shape[0] != self.channels:
            raise ValueError(f"expected {self.channels} channel(s), got {scan.shape[0]}")
        if not torch.isfinite(scan).all():
            raise ValueError("the scan has voxels that are NaN or infinite")
        ranges = [[float(p) for p in percentile(channel.as_tensor(), [0.5, 99.5])] for channel in scan]
        flat = [low for low, high in ranges if low == high]
        if flat and (not self.empty_channels or len(flat) == len(ranges)):
            raise ValueError(f"the scan has no contrast (its 0.5 and 99.5 percentiles are both {flat[0]:g})")
        spacing = spacing_of(scan.affine, self.spatial_dims)
        if not all(math.isfinite(s) and s > 0 for s in spacing):
            raise ValueError(f"spacing must be finite and above 0 mm, the affine says {format_size(spacing)}")
        if int(scan.meta.get("sform_code", 1)) == 0 and int(scan.meta.get("qform_code", 1)) == 0:
            _warn(scan, "the file does not say how it is oriented, left and right may be swapped")
        self._check_skull(scan, ranges, spacing)
        extent = [n * s for n, s in zip(scan.shape[1:], spacing)]
        if self.max_extent is not None and is_whole_head(self.field_of_view, extent, self.max_extent):
            return
        if self.max_extent is not None and max(extent) > self.max_extent:
            _warn(
                scan,
                f"field of view {format_size(extent)} mm, the network was trained on "
                f"crops of at most {self.max_extent:g} mm and may segment the wrong place: crop around the structure.",
            )
        self._warn_of_obliquity(scan)

    def _warn_of_obliquity(self, scan: MetaTensor) -> None:
        if self.max_obliquity is None or self.spatial_dims != 3:
            return
        degrees = float(np.rad2deg(obliquity(np.asarray(scan.affine, dtype=np.float64))).max())
        if degrees >= self.max_obliquity:
            _warn(
                scan,
                f"its axes are turned by {degrees:.0f} degrees from those of the body, the network was trained on "
                f"less than {self.max_obliquity:g}: resample it along the axes of the body first.",
            )

    def _check_skull(self, scan: MetaTensor, ranges: list[list[float]], spacing: Sequence[float]) -> None:
        """Warns of too much foreground, or refuses it; ``ranges`` are percentiles of each channel."""
        if self.max_foreground is None:
            return
        masks = []
        for channel, (_, high) in zip(scan.as_tensor(), ranges):
            lowest = float(channel.min())
            masks.append(channel > lowest + (high - lowest) / 20)
        litres_of_voxel = math.prod(spacing) / 1e6
        litres = float(torch.stack(masks).any(dim=0).sum()) * litres_of_voxel
        nonzero = float((scan.as_tensor() != 0).any(dim=0).sum()) * litres_of_voxel
        if litres <= self.max_foreground < nonzero:
            _warn(scan, f"{nonzero:.1f} l of the scan are not 0: voxels outside the brain must be 0.")
        if litres > self.max_foreground:
            reason = f"{litres:.1f} l of the scan are not background, a brain has at most {self.max_foreground:g}: "
            if self.refuse:
                raise RefusedError(
                    name_of(scan.meta),
                    f"{reason}remove the skull first, or with --skull_strip true (--force true segments it as it is, "
                    "with false findings outside the brain)",
                    spacing,
                )
            _warn(scan, f"{reason}the network was trained on brains whose skull was removed, remove it first.")


class CheckLabeld(MapTransform):
    """Rejects labels that do not fit their image, which would be scored wrongly.

    Args:
        keys: labels, shape (1, D, H, W), as loaded.
        image_key: image whose grid the labels must have.
        num_classes: classes, background included.
        spacing: voxel size that a labelled scan must have, mm, in the order of its axes; by default any.
        tolerance: fraction by which the spacing of an axis may differ.

    Raises:
        ValueError: if shape or affine differ from the image's, a value is none of 0 to ``num_classes - 1``, or the
            spacing differs.
    """

    def __init__(
        self,
        keys: KeysCollection,
        image_key: str,
        num_classes: int,
        spacing: Sequence[float] | None = None,
        tolerance: float = 0.1,
    ) -> None:
        super().__init__(keys)
        self.image_key = image_key
        self.num_classes = num_classes
        self.spacing = spacing
        self.tolerance = tolerance

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        for key in self.keys:
            with _file_in_errors(data[key]):
                self._check(data[key], data[self.image_key])
        return dict(data)

    def _check(self, label: MetaTensor, image: MetaTensor) -> None:
        if label.shape[0] != 1:
            raise ValueError(
                f"the label must have one channel of class indices, got {label.shape[0]} (one-hot?): take the argmax"
            )
        if label.shape[1:] != image.shape[1:]:
            raise ValueError(
                f"the label has {format_size(label.shape[1:])} voxels, its image {format_size(image.shape[1:])}"
            )
        if not torch.allclose(label.affine.double(), image.affine.double(), atol=1e-3, equal_nan=True):
            raise ValueError("the label's affine is not its image's: they do not lie on one grid")
        if self.spacing is not None:
            self._check_spacing(spacing_of(label.affine, label.ndim - 1))
        if not torch.isfinite(label).all():
            raise ValueError("the label has voxels that are NaN or infinite")
        values = torch.unique(label.as_tensor()).tolist()
        if not set(values) <= set(range(self.num_classes)):
            listed = f"{values[:10]}".replace("]", ", …]" if len(values) > 10 else "]")
            raise ValueError(f"the label must hold 0 to {self.num_classes - 1} only, got {listed}")

    def _check_spacing(self, spacing: Sequence[float]) -> None:
        if not all(is_near_spacing(s, t, self.tolerance) for s, t in zip(spacing, self.spacing)):
            raise ValueError(
                f"a labelled scan must have voxels of {format_size(self.spacing)} mm (to {self.tolerance:.0%}), from "
                f"which coarse scans are made, got {format_size(spacing)}: resample it and its label first"
            )
