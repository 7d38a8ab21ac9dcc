"""Coarse scans and labels, made from fine ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.data import MetaTensor
from monai.networks.utils import one_hot
from monai.transforms import DivisiblePad, Resize
from monai.utils import ensure_tuple_rep

from .geometry import format_size
from .resampling import as_plain_tensor

__all__ = ["IMAGE_MODES", "LABEL_MODES", "coarsen", "coarsen_label"]

IMAGE_MODES = ("mean", "trilinear")
LABEL_MODES = ("majority", "nearest")
_RESIZE_MODES = {"mean": "area", "trilinear": "trilinear", "nearest": "nearest"}
_ALIGNMENTS = {"centre": "symmetric", "start": "end"}  # where the scan lies -> where MONAI pads


def coarsen(
    x: torch.Tensor,
    factors: Sequence[int] | int,
    pad_value: float = 0.0,
    align: str = "centre",
    mode: str = "mean",
    divisor: Sequence[int] | int | None = None,
) -> torch.Tensor:
    """Scan coarser by an integer factor per axis, on the grid of the blocks' centres: padded to whole blocks first.

    All coarse scans of the package are made here. Where callers must differ:

    - *Simulated scans* (``SimulateLowResolutiond``, ``MultiResolutionPyramidd``) are raw: padding is their minimum, the
      background. They pad to one ``divisor`` for all levels, so that these cover the same extent.
    - The *side* (``MirrorInferer``) is chosen on a scaled scan: its minimum again, of each member of a batch alone.
      The scan lies in the centre, so that its mirror image is padded as it is.
    - *Several levels* (``MultiLevelInferer``) take 0 for background and raise the rest above it: padding is 0.
    - *Statistics of the foreground* (``ForegroundStatisticsd``) leave voxels of 0 out: padding is 0, at the end, as the
      shipped tumour network was trained.
    - ``tools/verify_samples.py`` has a function of its own: it works on files of any bundle without this package, and
      cuts incomplete blocks off, as a scan that it tests with must not hold invented voxels.

    Args:
        x: shape (C, *spatial_size).
        factors: voxels of ``x`` in one of the result, for all axes or one each; where all are 1, ``x`` is returned as
            it is.
        pad_value: what is added to complete blocks.
        align: ``"centre"`` pads on both sides (an odd voxel at the end), ``"start"`` at the end only.
        mode: ``"mean"`` of each block, ``"trilinear"`` (interpolated at the block's centre, the paper's) or
            ``"nearest"`` (the block's first voxel, half a block off the centre).
        divisor: what sizes are padded to a multiple of; ``factors`` by default.

    Returns:
        shape (C, *spatial_size / factors). A ``MetaTensor`` has the affine of the coarse grid.

    Raises:
        ValueError: on an unknown mode or alignment, or a ``divisor`` that does not lead to whole blocks.
    """
    if mode not in _RESIZE_MODES:
        raise ValueError(f"mode of images must be one of {tuple(_RESIZE_MODES)}, got {mode!r}.")
    if align not in _ALIGNMENTS:
        raise ValueError(f"align must be one of {tuple(_ALIGNMENTS)}, got {align!r}.")
    factors = ensure_tuple_rep(factors, x.ndim - 1)
    pad = DivisiblePad(factors if divisor is None else divisor, "constant", _ALIGNMENTS[align], value=pad_value)
    padded = pad(x)
    if any(n % f for n, f in zip(padded.shape[1:], factors)):
        raise ValueError(
            f"spatial_size must be divisible by {format_size(factors)} to be coarsened so far, "
            f"got {format_size(padded.shape[1:])}."
        )
    if any(f > 1 for f in factors):
        padded = Resize([n // f for n, f in zip(padded.shape[1:], factors)], mode=_RESIZE_MODES[mode])(padded)
    return padded if isinstance(x, MetaTensor) else as_plain_tensor(padded)


def coarsen_label(
    label: torch.Tensor,
    factors: Sequence[int] | int,
    mode: str = "majority",
    divisor: Sequence[int] | int | None = None,
) -> torch.Tensor:
    """Label coarser by an integer factor per axis, on the same grid as :py:func:`coarsen`, padded with background.

    Args:
        label: class indices, shape (1, *spatial_size).
        factors: as in :py:func:`coarsen`.
        mode: ``"majority"``, the most frequent class of each block, a tie to the lowest index; or ``"nearest"``, the
            block's first voxel (``F.interpolate``'s, the paper's), half a block off the image.
        divisor: as in :py:func:`coarsen`.

    Raises:
        ValueError: on an unknown mode, or a ``divisor`` that does not lead to whole blocks.
    """
    if mode not in LABEL_MODES:
        raise ValueError(f"mode of labels must be one of {LABEL_MODES}, got {mode!r}.")
    if mode == "nearest":
        return coarsen(label, factors, mode="nearest", divisor=divisor)
    padded = coarsen(label, 1, divisor=factors if divisor is None else divisor)
    if all(f == 1 for f in ensure_tuple_rep(factors, label.ndim - 1)):
        return padded
    # Shares of whole voxels in a block of 8^level are exact in float32, so a tie is a tie.
    shares = coarsen(one_hot(padded, int(padded.max()) + 1, dim=0), factors, divisor=divisor)
    return shares.argmax(dim=0, keepdim=True).to(label.dtype)
