"""Makes coarse scans and labels from fine ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from monai.data import MetaTensor
from monai.networks.utils import one_hot
from monai.transforms import DivisiblePad, Resize
from monai.utils import ensure_tuple_rep

from .geometry import format_size
from .labels import most_likely
from .resampling import as_plain_tensor

__all__ = ["IMAGE_MODES", "LABEL_MODES", "coarsen", "coarsen_and_scale", "coarsen_label"]

IMAGE_MODES = ("mean", "trilinear")
LABEL_MODES = ("majority", "nearest")
_RESIZE_MODES = {"mean": "area", "trilinear": "trilinear", "nearest": "nearest"}
_ALIGNMENTS = {"centre": "symmetric", "start": "end"}  # position of the scan -> MONAI's method of padding


def coarsen(
    x: torch.Tensor,
    factors: Sequence[int] | int,
    pad_value: float = 0.0,
    align: str = "centre",
    mode: str = "mean",
    divisor: Sequence[int] | int | None = None,
) -> torch.Tensor:
    """Coarsens a scan by an integer factor per axis: pads it to whole blocks and reduces each block to a voxel.

    Makes the coarse scans of the four scales; ``SimulateAcquisitiond`` simulates other acquisitions. The callers differ
    in the padding:

    - *Simulated scans* (``SimulateLowResolutiond``, ``MultiResolutionPyramidd``) have raw intensities. They are padded
      with their minimum, the background, and to one ``divisor``, so that all levels cover the same extent.
    - The *side* (``MirrorInferer``) is chosen on a scan with scaled intensities, padded with the minimum of each member
      of the batch. The scan lies in the centre, so that its mirror image gets the same padding. The second prediction
      of ``TrustInferer`` is that of such a scan too (:py:func:`coarsen_and_scale`).
    - *Several levels* (``MultiLevelInferer``): the background is 0, and so is the padding.
    - *Statistics of the foreground* (``ForegroundStatisticsd``) ignore voxels of 0: the padding is 0, at the end, as in
      the training of the shipped tumour network.
    - ``tools/verify_bundle/samples.py`` has its own function: it works on files of any bundle, without this
      package, and removes incomplete blocks, so that its test scans have no padded voxels.

    Args:
        x: shape (C, *spatial_size).
        factors: voxels per block along each axis, one number or one per axis. With 1 for all axes, ``x`` is only
            padded to ``divisor``.
        pad_value: intensity of the padding.
        align: ``"centre"`` pads on both sides (an odd voxel at the end), ``"start"`` at the end only.
        mode: ``"mean"`` of each block, ``"trilinear"`` (interpolated at the block's centre, as in the paper) or
            ``"nearest"`` (the block's first voxel, half a block off the centre).
        divisor: sizes are padded to a multiple of this; ``factors`` by default.

    Returns:
        shape (C, *spatial_size / factors). A ``MetaTensor`` has the affine of the coarse grid.

    Raises:
        ValueError: if the mode or alignment is unknown, or ``divisor`` does not lead to whole blocks.
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


def coarsen_and_scale(
    x: torch.Tensor, factors: Sequence[int], scaling: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
) -> torch.Tensor:
    """Means of blocks of a batch of scaled scans, with their intensities scaled again.

    Args:
        x: shape (B, C, *spatial_size).
        factors: voxels per block along each axis.
        scaling: dictionary transform of ``"image"``, shape (C, *spatial_size).
    """
    coarse = [coarsen(member, factors, pad_value=float(member.min())) for member in x.float()]
    return torch.stack([as_plain_tensor(scaling({"image": member})["image"]) for member in coarse])


def coarsen_label(
    label: torch.Tensor,
    factors: Sequence[int] | int,
    mode: str = "majority",
    divisor: Sequence[int] | int | None = None,
) -> torch.Tensor:
    """Coarsens a label by an integer factor per axis, to the same grid as :py:func:`coarsen`; pads with background.

    Args:
        label: class indices, shape (1, *spatial_size).
        factors: as in :py:func:`coarsen`.
        mode: ``"majority"``, the most frequent class of each block, with ties to the lowest index; or ``"nearest"``,
            the block's first voxel (as ``F.interpolate`` and the paper), half a block off the image.
        divisor: as in :py:func:`coarsen`.

    Raises:
        ValueError: if the mode is unknown, or ``divisor`` does not lead to whole blocks.
    """
    if mode not in LABEL_MODES:
        raise ValueError(f"mode of labels must be one of {LABEL_MODES}, got {mode!r}.")
    if mode == "nearest":
        return coarsen(label, factors, mode="nearest", divisor=divisor)
    padded = coarsen(label, 1, divisor=factors if divisor is None else divisor)
    if all(f == 1 for f in ensure_tuple_rep(factors, label.ndim - 1)):
        return padded
    # The fractions of classes in a block of 8^level voxels are exact in float32, so ties are found exactly.
    shares = coarsen(one_hot(padded, int(padded.max()) + 1, dim=0), factors, divisor=divisor)
    return most_likely(shares, keepdim=True).to(label.dtype)
