"""Pictures of predictions: three planes of the scan with the contours of each class, as SVG.

The planes are those of the prediction's own grid. No voxel of the prediction is interpolated.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from monai.data import MetaTensor
from monai.transforms import Orientation, SpatialCrop, SpatialResample

from ..utils.geometry import spacing_of
from ..utils.resampling import as_plain_tensor
from .panels import PANEL, PLANES, Plane, captions, contours_on, panel_of

__all__ = ["channels_on", "draw_picture", "sides_of"]

SIDE = re.compile(r"(left|right)[ _-]", re.IGNORECASE)
MARGIN = 10.0  # mm around the structure
TEXT = 'fill="#fff" stroke="#000" stroke-width="2.5" stroke-opacity=".6" paint-order="stroke" font-size="11"'
GAP = 6  # between panels


@dataclass(frozen=True)
class _View:
    """Part of a scan that a row of panels shows.

    Attributes:
        title: words above the row, may be empty.
        centre: voxel indices in the middle of the panels.
        slices: index of the slice of each plane, by the axis orthogonal to it.
    """

    title: str
    centre: tuple[float, ...]
    slices: tuple[int, ...]


def sides_of(class_names: Sequence[str]) -> dict[str, list[str]]:
    """Groups classes by their side, the first word of names such as ``left_anterior``.

    Returns:
        names of the classes by ``left`` and ``right``; all of them by an empty side if a class has no side.
    """
    matches = [SIDE.match(name) for name in class_names]
    if not class_names or not all(matches):
        return {"": list(class_names)}
    groups: dict[str, list[str]] = {}
    for name, match in zip(class_names, matches):
        groups.setdefault(match[1].lower(), []).append(name)
    return groups


def draw_picture(scans: Mapping[str, MetaTensor], labels: MetaTensor, class_names: Sequence[str]) -> str:
    """Draws three planes through each side of a structure, for each channel of the scan.

    A plane is the slice with the most voxels of the structure. An empty prediction gets the slices in the middle.

    Args:
        scans: images of shape (C, *spatial_size) by name, on any grid; the names are shown if there are several.
        labels: class indices, shape (1, *spatial_size).
        class_names: names of the classes above background, in order.

    Returns:
        an SVG document that needs no other file.

    Raises:
        ValueError: if the labels do not have three axes.
    """
    if labels.ndim != 4:
        raise ValueError(f"a picture needs labels with 3 axes, got {labels.ndim - 1}.")
    labels = Orientation("LPI", labels=None)(labels)
    spacing = spacing_of(labels.affine, 3)
    views, size = _views(as_plain_tensor(labels)[0], class_names, spacing)
    rows, outlines = [], []
    for view in views:
        start = [max(0, math.floor(c - size / 2 / s)) for c, s in zip(view.centre, spacing)]
        end = [min(n, math.ceil(c + size / 2 / s) + 1) for c, s, n in zip(view.centre, spacing, labels.shape[1:])]
        crop = SpatialCrop(roi_start=start, roi_end=end)(labels)
        planes = _planes(view, start, spacing, size)
        contours = ["".join(contours_on(plane.cut(as_plain_tensor(crop)[0]), plane)) for plane in planes]
        # Channels share their contours. The name must be unique in a page of many pictures.
        ids = [f"outline-{hashlib.sha1(text.encode()).hexdigest()[:12]}" for text in contours]
        outlines += [f'<g id="{name}">{text}</g>' for name, text in zip(ids, contours)]
        for name, channel in channels_on(scans, crop):
            title = ", ".join(part for part in (view.title, name) if part)
            panels = [panel_of(plane, plane.cut(channel), outline, size) for plane, outline in zip(planes, ids)]
            rows.append(_row(panels, title, planes, size))
    width, height = 3 * PANEL + 2 * GAP, len(rows) * (PANEL + GAP) - GAP
    placed = [f'<g transform="translate(0 {i * (PANEL + GAP)})">{row}</g>' for i, row in enumerate(rows)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="system-ui, sans-serif" class="picture"><defs>{"".join(outlines)}</defs>{"".join(placed)}</svg>\n'
    )


def _views(labels: torch.Tensor, class_names: Sequence[str], spacing: Sequence[float]) -> tuple[list[_View], float]:
    """Returns the views of all sides that have a voxel, and the size of their panels in mm."""
    views, extents = [], []
    indices = {name: index for index, name in enumerate(class_names, start=1)}
    foreground = (labels > 0).nonzero()  # few voxels of a whole head
    classes = labels[tuple(foreground.T)].long()
    for title, names in sides_of(class_names).items():
        voxels = foreground[torch.isin(classes, torch.tensor([indices[name] for name in names]))]
        if len(voxels) == 0:
            continue
        low, high = voxels.amin(dim=0).tolist(), voxels.amax(dim=0).tolist()
        extents += [(h - a + 1) * s for a, h, s in zip(low, high, spacing)]
        centre = tuple((a + h) / 2 for a, h in zip(low, high))
        views.append(_View(title, centre, tuple(int(voxels[:, axis].bincount().argmax()) for axis in range(3))))
    if views:
        return views, max(extents) + 2 * MARGIN
    middle = tuple((n - 1) / 2 for n in labels.shape)
    extent = max(n * s for n, s in zip(labels.shape, spacing))
    return [_View("no voxel is segmented", middle, tuple(n // 2 for n in labels.shape))], extent


def channels_on(scans: Mapping[str, MetaTensor], crop: MetaTensor) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields name and voxels of each channel, with intensities from 0 to 1, on the grid of a part of the labels."""
    for name, scan in scans.items():
        # Linear, as the grids are the same, or the labels are on the finer grid of level 0.
        part = SpatialResample(mode="bilinear", padding_mode="zeros")(scan, crop.affine, crop.shape[1:])
        for index, channel in enumerate(as_plain_tensor(part).float()):
            title = name if len(scans) > 1 else f"channel {index}" if len(part) > 1 else ""
            low, high = _window(channel)
            yield title, ((channel - low) / (high - low)).clamp(0, 1)


def _window(channel: torch.Tensor) -> tuple[float, float]:
    """Returns the 0.5 and 99.5 percentile of the voxels above the lowest value, the background; never equal ones."""
    lowest = float(channel.min())
    values = channel[channel > lowest]
    if len(values) == 0:
        return lowest, lowest + 1.0
    low, high = torch.quantile(_thinned(values), torch.tensor([0.005, 0.995])).tolist()
    return (low, high) if high > low else (lowest, high)


def _thinned(values: torch.Tensor) -> torch.Tensor:
    return values[:: math.ceil(len(values) / 1_000_000)]  # torch.quantile refuses more than 16 million values


def _planes(view: _View, start: Sequence[int], spacing: Sequence[float], size: float) -> list[Plane]:
    """Returns the three planes of a view, for tensors that begin at the voxel ``start`` of the scan."""
    planes = []
    for name, (normal, column, row) in PLANES.items():
        axes = (row, column)
        planes.append(
            Plane(
                name,
                normal,
                view.slices[normal] - start[normal],
                tuple(start[axis] * spacing[axis] for axis in axes),
                tuple(spacing[axis] for axis in axes),
                tuple(view.centre[axis] * spacing[axis] - size / 2 for axis in axes),
            )
        )
    return planes


def _row(panels: Sequence[str], title: str, planes: Sequence[Plane], size: float) -> str:
    row = []
    for number, (panel, plane) in enumerate(zip(panels, planes)):
        words = captions(plane.name, title if number == 0 else "", size)
        row.append(f'<g transform="translate({number * (PANEL + GAP)} 0)">{panel}<g {TEXT}>{words}</g></g>')
    return "".join(row)
