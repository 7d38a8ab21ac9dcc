"""Resampling of a tensor to another number of voxels over the same extent, and the affine of the result."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from monai.data import MetaTensor
from monai.networks.layers import GaussianFilter
from monai.utils import convert_to_dst_type
from torch.nn import functional as F

from .geometry import LINEAR, rescaled_affine

__all__ = ["area_resize", "as_plain_tensor", "copy_meta_like", "resample"]


def as_plain_tensor(x: torch.Tensor) -> torch.Tensor:
    """``x`` without metadata, which MONAI would carry through every operation, and keep wrong."""
    return x.as_tensor() if isinstance(x, MetaTensor) else x


def resample(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Linear, over the same extent; an axis that gets coarser is smoothed first, so that it does not alias."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    factors = [n / m for n, m in zip(x.shape[2:], size)]
    if max(factors) > 1:
        # Half a voxel of blur per voxel of growth is scikit-image's and MONAI's choice for anti-aliasing.
        sigmas = [max(0.0, (f - 1) / 2) for f in factors]
        margins = [math.ceil(4 * s) for s in sigmas]  # the filter's reach; it would pad with zeros and darken borders
        x = F.pad(x, [m for m in reversed(margins) for _ in range(2)], mode="replicate")
        x = GaussianFilter(len(size), sigmas)(x)
        x = x[(..., *(slice(m, n - m) for m, n in zip(margins, x.shape[2:])))]
    return F.interpolate(x, tuple(size), mode=LINEAR[len(size)])


def area_resize(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """As :py:func:`resample`, but where every axis shrinks or grows by an integer factor, the exact mean of each block.

    Args:
        x: shape (B, C, *spatial_size).
        size: voxels asked for.
    """
    pairs = list(zip(x.shape[2:], size))
    if any(n % m and m % n for n, m in pairs):
        return resample(x, size)
    x = F.interpolate(x, [min(pair) for pair in pairs], mode="area")
    return F.interpolate(x, tuple(size), mode=LINEAR[len(pairs)])


def copy_meta_like(x: torch.Tensor, scan: torch.Tensor) -> torch.Tensor:
    """``x`` with the metadata of ``scan`` and the affine of its own number of voxels over the scan's extent.

    Args:
        x: shape (B, C, *spatial_size), on any grid over the extent of ``scan``.
        scan: likewise. If it is no ``MetaTensor``, ``x`` is returned as it is.
    """
    if not isinstance(scan, MetaTensor):
        return x
    answer = convert_to_dst_type(x, scan)[0]
    answer.affine = rescaled_affine(scan.affine, scan.shape[2:], x.shape[2:])
    return answer
