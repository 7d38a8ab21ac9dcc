"""Geometry of grids: spacing, affines, symmetric padding, and sizes in messages."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.data.utils import affine_to_spacing
from monai.transforms.utils import scale_affine
from monai.utils import ensure_tuple_rep
from torch.nn import functional as F

__all__ = [
    "FIELDS_OF_VIEW",
    "LINEAR",
    "extent_of",
    "format_size",
    "is_near_spacing",
    "is_whole_head",
    "rescaled_affine",
    "scaled_box",
    "spacing_of",
    "symmetric_core",
    "symmetric_margins",
    "symmetric_pad",
]

LINEAR = {2: "bilinear", 3: "trilinear"}  # number of spatial axes -> torch's name of linear interpolation

FIELDS_OF_VIEW = ("auto", "head", "crop")


def format_size(values: Sequence[float]) -> str:
    """Formats ``(1, 1, 4)`` as ``"1×1×4"``, for messages."""
    return "×".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in values)


def spacing_of(affine: torch.Tensor, spatial_dims: int) -> list[float]:
    """Voxel size in mm of an affine; a degenerate axis is 0 (MONAI's default would call it 1)."""
    affine = torch.as_tensor(affine, dtype=torch.float64)
    return affine_to_spacing(affine, spatial_dims, suppress_zeros=False).tolist()


def is_near_spacing(spacing: float, reference: float, tolerance: float) -> bool:
    """Whether a voxel size differs from another by at most a fraction of it; NaN never does.

    A little slack is for affines stored in float32.
    """
    return abs(spacing / reference - 1) <= tolerance + 1e-6


def is_whole_head(field_of_view: str, extent: Sequence[float], max_extent: float) -> bool:
    """Whether a scan shows a whole head rather than a crop around one structure.

    Args:
        field_of_view: ``"head"``, ``"crop"``, or ``"auto"``: a scan that is too long for a crop is a head.
        extent: of the scan in mm, by axis.
        max_extent: longest crop in mm.
    """
    return field_of_view == "head" or (field_of_view == "auto" and max(extent) > max_extent)


def extent_of(affine: torch.Tensor, spatial_size: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Smallest and largest coordinates (mm) of a grid, up to the outer faces of its voxels."""
    ends = [torch.tensor([-0.5, n - 0.5], dtype=torch.float64) for n in spatial_size]
    corners = torch.cartesian_prod(*ends)
    affine = torch.as_tensor(affine, dtype=torch.float64)
    points = corners @ affine[:-1, :-1].T + affine[:-1, -1]
    return points.amin(dim=0), points.amax(dim=0)


def rescaled_affine(affine: torch.Tensor, spatial_size: Sequence[int], new_size: Sequence[int]) -> torch.Tensor:
    """Affine, or batch of affines, of a grid of ``new_size`` voxels over the extent of one of ``spatial_size``."""
    return affine @ torch.as_tensor(scale_affine(spatial_size, new_size), dtype=affine.dtype, device=affine.device)


def symmetric_margins(spatial_size: Sequence[int], padded_size: Sequence[int]) -> list[tuple[int, int]]:
    """Voxels of a symmetric padding before and after, by axis; an odd voxel goes after, as in MONAI."""
    return [((p - n) // 2, p - n - (p - n) // 2) for n, p in zip(spatial_size, padded_size)]


def symmetric_pad(x: torch.Tensor, padded_size: Sequence[int], value: float) -> torch.Tensor:
    """Pads ``x``, shape (B, C, *spatial_size), symmetrically to ``padded_size`` with a value."""
    widths = []
    for before, after in reversed(symmetric_margins(x.shape[2:], padded_size)):  # F.pad starts at the last axis
        widths += [before, after]
    return F.pad(x, widths, value=value)


def symmetric_core(
    spatial_size: Sequence[int], padded_size: Sequence[int], scale: Sequence[int] | int = 1
) -> tuple[slice, ...]:
    """Index that removes a symmetric padding: ``x[(..., *core)]``.

    For an ``x`` on a finer grid, ``scale`` is the factor between the grids, for all axes or one each. Margins are
    computed on the coarse grid and then scaled, because an odd number of voxels cannot be halved.
    """
    margins = symmetric_margins(spatial_size, padded_size)
    core = [slice(before, before + n) for (before, _), n in zip(margins, spatial_size)]
    return scaled_box(core, ensure_tuple_rep(scale, len(core)))


def scaled_box(box: Sequence[slice], scale: Sequence[int]) -> tuple[slice, ...]:
    """Scales a box to a grid that is finer by a factor per axis."""
    return tuple(slice(s.start * factor, s.stop * factor) for s, factor in zip(box, scale))
