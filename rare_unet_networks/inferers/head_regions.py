"""Boxes around the structures of a whole head: cut out of the scan, and put together on its grid again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from monai.data import MetaTensor
from monai.transforms.utils import scale_affine
from torch.nn import functional as F

from ..utils.geometry import spacing_of
from ..utils.resampling import as_plain_tensor

__all__ = ["Region", "affine_of", "cut_on_grid", "cut_upright", "joint_box", "joint_probabilities", "translation"]

LEAST = 1e-6  # probability of background where the boxes of both sides claim a voxel
WHOLE = 1e-3  # voxels by which a grid may lie beside another and still count as a part of it


@dataclass
class Region:
    """Box around one side's structure.

    Attributes:
        side: ``"left"`` or ``"right"``.
        crop: the image in it, shape (1, C, *spatial_size).
        to_scan: affine from voxels of the crop to those of the scan, shape (4, 4).
    """

    side: str
    crop: MetaTensor
    to_scan: torch.Tensor


def affine_of(scan: MetaTensor) -> torch.Tensor:
    """Affine of a batch of one scan in double precision, shape (4, 4)."""
    return scan.affine.reshape(-1, 4, 4)[0].double().cpu()


def translation(shift: Sequence[float]) -> torch.Tensor:
    """Affine that adds a shift, shape (4, 4)."""
    affine = torch.eye(4, dtype=torch.float64)
    affine[:3, 3] = torch.as_tensor(shift, dtype=torch.float64)
    return affine


def _as_crop(image: torch.Tensor, scan: MetaTensor, to_scan: torch.Tensor) -> MetaTensor:
    crop = MetaTensor(image, affine=affine_of(scan) @ to_scan)
    crop.meta["filename_or_obj"] = scan.meta.get("filename_or_obj", "")
    return crop


def cut_on_grid(scan: MetaTensor, side: str, centre: torch.Tensor, size: torch.Tensor) -> Region:
    """Cuts out the whole voxels of a scan that hold a box, as far as the scan reaches.

    Args:
        scan: shape (1, C, *spatial_size).
        side: side of the structure.
        centre: of the box in mm along the axes of the scan, from the centre of its first voxel.
        size: of the box in mm.
    """
    spacing = torch.tensor(spacing_of(affine_of(scan), 3), dtype=torch.float64)
    limits = torch.tensor(scan.shape[2:])
    start = ((centre - size / 2) / spacing + 0.5 + WHOLE).floor().long()
    stop = ((centre + size / 2) / spacing + 0.5 - WHOLE).ceil().long()
    start = torch.minimum(start.clamp(min=0), limits - 1)
    stop = torch.minimum(stop, limits).maximum(start + 1)
    crop = as_plain_tensor(scan)[(..., *(slice(a, b) for a, b in zip(start.tolist(), stop.tolist())))]
    to_scan = translation(start.tolist())
    return Region(side, _as_crop(crop, scan, to_scan), to_scan)


def cut_upright(
    scan: MetaTensor,
    side: str,
    centre: torch.Tensor,
    offset: torch.Tensor,
    size: torch.Tensor,
    rotation: torch.Tensor,
    target: Sequence[float],
) -> Region:
    """Resamples a turned box of a scan to an upright grid, linearly; what the scan does not show is its nearest voxel.

    Args:
        scan: shape (1, C, *spatial_size).
        side: side of the structure.
        centre: of the structure in mm along the axes of the scan, from the centre of its first voxel.
        offset: from there to the centre of the box in an upright head, in mm.
        size: of the box in mm.
        rotation: that turns an upright head as the scan's is turned, shape (3, 3).
        target: spacing of the upright grid in mm.
    """
    spacing = torch.tensor(spacing_of(affine_of(scan), 3), dtype=torch.float64)
    target = torch.as_tensor(target, dtype=torch.float64)
    voxels = (size / target).ceil().long().tolist()
    linear = rotation * target / spacing[:, None]
    middle = (centre + rotation @ offset) / spacing
    to_scan = torch.eye(4, dtype=torch.float64)
    to_scan[:3, :3] = linear
    to_scan[:3, 3] = middle - linear @ ((torch.tensor(voxels, dtype=torch.float64) - 1) / 2)
    source, to_source = as_plain_tensor(scan).float(), to_scan
    # Fine voxels are averaged first: sampling them at a coarser distance would alias.
    blocks = [max(1, int(float(t / s) + 0.1)) for t, s in zip(target, spacing)]
    if max(blocks) > 1:
        source = F.avg_pool3d(source, blocks, ceil_mode=True, count_include_pad=False)
        step = torch.tensor(blocks, dtype=torch.float64)
        to_source = torch.diag(torch.cat([1 / step, torch.ones(1)])) @ translation(((1 - step) / 2).tolist()) @ to_scan
    crop = _sampled(source, to_source, [slice(0, n) for n in voxels], padding_mode="border")
    return Region(side, _as_crop(crop, scan, to_scan), to_scan)


def _sampled(x: torch.Tensor, to_x: torch.Tensor, box: Sequence[slice], padding_mode: str) -> torch.Tensor:
    """Samples ``x``, shape (1, C, *spatial_size), at the voxels of a box of a grid, which ``to_x`` maps to its own."""
    axes = [torch.arange(s.start, s.stop, dtype=torch.float64) for s in box]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1) @ to_x[:3, :3].T + to_x[:3, 3]
    size = torch.tensor(x.shape[2:], dtype=torch.float64)
    grid = ((2 * points + 1) / size - 1).flip(-1)[None].to(x)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode=padding_mode, align_corners=False)


def joint_box(regions: Sequence[Region], spatial_size: Sequence[int]) -> tuple[list[int], list[int]]:
    """First voxel and the one after the last of the smallest box of a scan's grid that holds all regions."""
    corners = []
    for region in regions:
        ends = [torch.tensor([-0.5, n - 0.5], dtype=torch.float64) for n in region.crop.shape[2:]]
        corners.append(torch.cartesian_prod(*ends) @ region.to_scan[:3, :3].T + region.to_scan[:3, 3])
    points = torch.cat(corners)
    low = (points.amin(dim=0) + 0.5 + WHOLE).floor().long().clamp(min=0).tolist()
    high = (points.amax(dim=0) + 0.5 - WHOLE).ceil().long().tolist()
    return low, [max(a + 1, min(b, n)) for a, b, n in zip(low, high, spatial_size)]


def joint_probabilities(
    regions: Sequence[Region],
    logits: Sequence[torch.Tensor],
    first_channels: Sequence[int],
    channels: int,
    to_scan: torch.Tensor,
    spatial_size: Sequence[int],
) -> torch.Tensor:
    """Log probabilities of all sides on one grid, shape (1, channels, *spatial_size).

    Args:
        regions: the boxes.
        logits: of each box, shape (1, classes, *spatial_size), on any grid over its extent, background first.
        first_channels: channel of the first class above background of each box.
        channels: of the result, background included.
        to_scan: affine from voxels of the result to those of the scan, shape (4, 4).
        spatial_size: voxels of the result.
    """
    joined = torch.zeros(1, channels, *spatial_size, device=logits[0].device)
    for region, values, first in zip(regions, logits, first_channels):
        foreground = as_plain_tensor(values).float().softmax(dim=1)[:, 1:]
        size = values.shape[2:]
        own = region.to_scan @ torch.as_tensor(scale_affine(region.crop.shape[2:], size), dtype=torch.float64)
        to_own = torch.linalg.inv(own) @ to_scan
        box = _covered(torch.linalg.inv(to_own), size, spatial_size)
        part = (0, slice(first, first + foreground.shape[1]), *box)
        shift = to_own[:3, 3]
        if torch.allclose(to_own[:3, :3], torch.eye(3, dtype=torch.float64), atol=WHOLE) and torch.allclose(
            shift, shift.round(), atol=WHOLE
        ):
            starts = shift.round().long().tolist()
            joined[part] = foreground[(0, ..., *(slice(s.start + a, s.stop + a) for s, a in zip(box, starts)))]
        else:
            joined[part] = _sampled(foreground, to_own, box, padding_mode="zeros")[0]
    joined[:, 0] = (1 - joined[:, 1:].sum(dim=1)).clamp(min=LEAST)
    return joined.clamp(min=1e-12).log()


def _covered(to_grid: torch.Tensor, size: Sequence[int], spatial_size: Sequence[int]) -> list[slice]:
    """Box of a grid in which the voxels of another one of ``size`` lie; ``to_grid`` maps them to it."""
    ends = [torch.tensor([-0.5, n - 0.5], dtype=torch.float64) for n in size]
    points = torch.cartesian_prod(*ends) @ to_grid[:3, :3].T + to_grid[:3, 3]
    low = (points.amin(dim=0) - WHOLE).ceil().long().clamp(min=0).tolist()
    high = [min(math.floor(float(v) + WHOLE) + 1, n) for v, n in zip(points.amax(dim=0), spatial_size)]
    return [slice(a, max(a, b)) for a, b in zip(low, high)]
