"""One panel of a picture: a plane through a scan, its contours and its captions, as SVG."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import torch
from torch.nn import functional as F

from ..utils.colours import label_colour

__all__ = ["PANEL", "PLANES", "Plane", "captions", "contours_on", "panel_of"]

# Axis orthogonal to a plane, and the axes along its columns and rows. Indices grow to the left, to the back and
# downwards (LPI), so that the patient's right and the front are on the left of the pictures.
PLANES = {"sagittal": (0, 1, 2), "coronal": (1, 0, 2), "axial": (2, 0, 1)}
ENDS = ("RL", "AP", "SI")  # letters at the first and last index of an axis
MAX_PIXELS = 192  # of a picture's side; larger ones are thinned out
MAX_POINTS = 1000  # of the contours of a class on a plane
QUALITY = 85  # of JPEG
PANEL = 240  # size of a panel in units of the SVG


@dataclass(frozen=True)
class Plane:
    """A plane through a part of a scan; pairs are of rows and columns, in mm.

    Attributes:
        name: of the anatomical plane.
        normal: axis orthogonal to it.
        index: of the slice.
        origin: position of the first pixel.
        steps: distance of two pixels.
        corner: position of the upper left corner of the panel.
    """

    name: str
    normal: int
    index: int
    origin: tuple[float, float]
    steps: tuple[float, float]
    corner: tuple[float, float]

    def cut(self, volume: torch.Tensor) -> torch.Tensor:
        """The slice, shape (rows, columns)."""
        return volume.select(self.normal, self.index).T


def panel_of(plane: Plane, pixels: torch.Tensor, outline: str, size: float) -> str:
    y, x = plane.corner
    return (
        f'<svg width="{PANEL}" height="{PANEL}" viewBox="{x:.1f} {y:.1f} {size:.1f} {size:.1f}">'
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{size:.1f}" height="{size:.1f}"/>{_image(pixels, plane)}'
        f'<use class="contour" href="#{outline}"/></svg>'
    )


def _image(pixels: torch.Tensor, plane: Plane) -> str:
    from matplotlib.image import imsave  # an optional extra

    height, width = (n * s for n, s in zip(pixels.shape, plane.steps))
    y, x = (o - s / 2 for o, s in zip(plane.origin, plane.steps))
    pixels = pixels[tuple(slice(None, None, math.ceil(n / MAX_PIXELS)) for n in pixels.shape)]
    file = io.BytesIO()
    imsave(file, pixels.numpy(), vmin=0, vmax=1, cmap="gray", format="jpeg", pil_kwargs={"quality": QUALITY})
    data = base64.b64encode(file.getvalue()).decode()
    return (
        f'<image x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}" preserveAspectRatio="none" '
        f'href="data:image/jpeg;base64,{data}"/>'
    )


def contours_on(classes: torch.Tensor, plane: Plane) -> Iterator[str]:
    """Yields the contour of each class on a plane, half way between its voxels and others."""
    from contourpy import contour_generator  # comes with matplotlib

    for index in classes.unique().tolist():
        if index == 0:
            continue
        mask = F.pad((classes == index).float(), (1, 1, 1, 1))
        rows, columns = (o + s * (torch.arange(n) - 1) for o, s, n in zip(plane.origin, plane.steps, mask.shape))
        lines = contour_generator(columns.numpy(), rows.numpy(), mask.numpy()).lines(0.5)
        path = "".join("M" + "L".join(f"{x:.4g} {y:.4g}" for x, y in line) + "Z" for line in _simplified(lines))
        yield (
            f'<path d="{path}" fill="none" stroke="{label_colour(int(index))}" stroke-width="1.5" '
            'stroke-linejoin="round" vector-effect="non-scaling-stroke"/>'
        )


def _simplified(lines: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Removes points within straight pieces, and the shortest of lines that have too many points for a page."""
    kept, count = [], 0
    for line in sorted(lines, key=len, reverse=True):
        line = line[:-1]  # the first point again: all lines are closed, because the mask is padded
        before, after = line - np.roll(line, 1, axis=0), np.roll(line, -1, axis=0) - line
        line = line[np.abs(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]) > 1e-6]
        count += len(line)
        if count > MAX_POINTS and kept:
            break
        kept.append(line)
    return kept


def captions(plane: str, title: str, size: float) -> str:
    """Returns the name of the plane, letters at its edges, and a bar of 10 mm (50 mm in large panels)."""
    columns, rows = (ENDS[axis] for axis in PLANES[plane][1:])
    bar = 10 if size < 120 else 50
    length = PANEL * bar / size
    middle = PANEL / 2
    return (
        f'<text x="7" y="16">{escape(title)}</text>'
        f'<text x="7" y="{PANEL - 8}">{plane}</text>'
        f'<text x="5" y="{middle + 4}">{columns[0]}</text>'
        f'<text x="{PANEL - 5}" y="{middle + 4}" text-anchor="end">{columns[1]}</text>'
        f'<text x="{middle}" y="13" text-anchor="middle">{rows[0]}</text>'
        f'<text x="{middle}" y="{PANEL - 5}" text-anchor="middle">{rows[1]}</text>'
        f'<path d="M{PANEL - 8 - length:.1f} {PANEL - 9}h{length:.1f}" stroke="#fff" stroke-opacity="1"/>'
        f'<text x="{PANEL - 8}" y="{PANEL - 14}" text-anchor="end">{bar} mm</text>'
    )
