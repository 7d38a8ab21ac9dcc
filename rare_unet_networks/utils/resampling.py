"""Resampling to another number of voxels over the same extent, and the affine of the result."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from monai.data import MetaTensor
from monai.networks.layers import GaussianFilter
from monai.utils import convert_to_dst_type
from torch.nn import functional as F

from .geometry import LINEAR, rescaled_affine, symmetric_core

__all__ = ["area_resize", "as_plain_tensor", "copy_meta_like", "from_padded", "resample"]


def as_plain_tensor(x: torch.Tensor) -> torch.Tensor:
    """``x`` without its metadata, which MONAI would keep in every operation even where it becomes wrong."""
    return x.as_tensor() if isinstance(x, MetaTensor) else x


def resample(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Resamples linearly over the same extent; smooths axes that become coarser, to avoid aliasing."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    factors = [n / m for n, m in zip(x.shape[2:], size)]
    if max(factors) > 1:
        # Half a voxel of blur per voxel of growth is scikit-image's and MONAI's choice for anti-aliasing.
        sigmas = [max(0.0, (f - 1) / 2) for f in factors]
        # The filter pads with zeros, which darkens the borders; so the image is padded by the filter's reach before.
        margins = [math.ceil(4 * s) for s in sigmas]
        x = F.pad(x, [m for m in reversed(margins) for _ in range(2)], mode="replicate")
        x = GaussianFilter(len(size), sigmas)(x)
        x = x[(..., *(slice(m, n - m) for m, n in zip(margins, x.shape[2:])))]
    return F.interpolate(x, tuple(size), mode=LINEAR[len(size)])


def from_padded(x: torch.Tensor, padded_size: Sequence[int], size: Sequence[int], scale: Sequence[int]) -> torch.Tensor:
    """Brings a prediction of a padded, coarser scan to the grid of the scan, or to one finer by ``scale``.

    Args:
        x: shape (B, C, *spatial_size), over the extent of the padded scan.
        padded_size: voxels of the scan after symmetric padding.
        size: voxels of the scan.
        scale: factor per axis between the scan's grid and that of the result.
    """
    return resample(x, [n * s for n, s in zip(padded_size, scale)])[(..., *symmetric_core(size, padded_size, scale))]


def area_resize(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Resamples by block means if every axis shrinks or grows by an integer factor, else as :py:func:`resample`.

    Args:
        x: shape (B, C, *spatial_size).
        size: voxels of the result.
    """
    if tuple(x.shape[2:]) == tuple(size):
        return x
    pairs = list(zip(x.shape[2:], size))
    if any(n % m and m % n for n, m in pairs):
        return resample(x, size)
    x = F.interpolate(x, [min(pair) for pair in pairs], mode="area")
    return F.interpolate(x, tuple(size), mode=LINEAR[len(pairs)])


def copy_meta_like(x: torch.Tensor, scan: torch.Tensor) -> torch.Tensor:
    """Gives ``x`` the metadata of ``scan``, and the affine that fits its number of voxels.

    Args:
        x: shape (B, C, *spatial_size), on any grid over the extent of ``scan``.
        scan: likewise. If it is not a ``MetaTensor``, ``x`` is returned unchanged.
    """
    if not isinstance(scan, MetaTensor):
        return x
    result = convert_to_dst_type(x, scan)[0]
    result.affine = rescaled_affine(scan.affine, scan.shape[2:], x.shape[2:])
    return result
