"""Simulates scans of any voxel size from a finer one: slice profile, slice gap, position of the grid, noise.

Each axis is sampled by one matrix, so that a scan costs three matrix products. A scanner's voxel averages over its
slice profile. The given scan has already averaged over its voxels, so only the missing blur is added. Block means
(:py:func:`rare_unet_networks.utils.coarsening.coarsen`) are the profile ``"box"`` at an integer factor without offset.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.networks.utils import one_hot
from monai.transforms import MapTransform, Randomizable
from monai.utils import ensure_tuple

from ..data.acquisitions import Acquisition
from ..utils.geometry import format_size, spacing_of
from ..utils.labels import most_likely
from ..utils.resampling import as_plain_tensor

__all__ = ["RandSimulateAcquisitiond", "SimulateAcquisitiond", "simulate_acquisition"]

FWHM = 2 * math.sqrt(2 * math.log(2))  # full width at half maximum of a Gaussian, in standard deviations


def _discrete_gaussian(sigma: float) -> torch.Tensor:
    """Returns Lindeberg's discrete Gaussian, cut at 4 standard deviations; its variance is right for narrow kernels.

    As ``monai.networks.layers.gaussian_1d`` with ``approx="scalespace"``, computed by a Fourier transform: the
    recurrences of Bessel functions cost more than the rest of an acquisition.
    """
    reach = math.ceil(4 * sigma)
    num_samples = 4 * reach + 16
    angles = 2 * math.pi / num_samples * torch.arange(num_samples // 2 + 1, dtype=torch.float64)
    around_0 = torch.fft.irfft(torch.exp(sigma**2 * (angles.cos() - 1)), num_samples)
    kernel = around_0.roll(reach)[: 2 * reach + 1]
    return kernel / kernel.sum()


def profile_weights(num_voxels: int, centres: torch.Tensor, width: float, profile: str) -> torch.Tensor:
    """Returns the weight of each given voxel in each new one along an axis, shape (new, given); rows add up to 1.

    Args:
        num_voxels: voxels of the given scan along the axis. Border voxels are repeated outside.
        centres: centres of the new voxels, in voxels of the given scan.
        width: width of the profile, in voxels of the given scan; at most 1 adds no blur.
        profile: ``"gaussian"`` or ``"box"``.
    """
    weights = torch.zeros(len(centres), num_voxels, dtype=torch.float64)
    if profile == "box":
        half = max(width, 1.0) / 2
        faces = torch.arange(num_voxels + 1, dtype=torch.float64) - 0.5
        faces[0], faces[-1] = -math.inf, math.inf
        lower, upper = centres[:, None] - half, centres[:, None] + half
        overlap = torch.minimum(upper, faces[None, 1:]) - torch.maximum(lower, faces[None, :-1])
        return overlap.clamp(min=0) / (2 * half)
    sigma = math.sqrt(max(width**2 - 1, 0.0)) / FWHM
    kernel = _discrete_gaussian(sigma)
    taps = torch.arange(len(kernel), dtype=torch.float64) - len(kernel) // 2
    positions = (centres[:, None] + taps).clamp(0, num_voxels - 1)  # linear between the blurred voxels
    below = positions.floor().long()
    above = (below + 1).clamp(max=num_voxels - 1)
    share = positions - below
    weights.scatter_add_(1, below, (1 - share) * kernel)
    return weights.scatter_add_(1, above, share * kernel)


def sample_axes(x: torch.Tensor, weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """Multiplies each spatial axis of ``x``, shape (C, *spatial_size), by its matrix; None leaves an axis unchanged."""
    matrices = [(axis, matrix) for axis, matrix in enumerate(weights, start=1) if matrix is not None]
    matrices.sort(key=lambda pair: len(pair[1]) / pair[1].shape[1])  # the strongest reduction first saves the most
    for axis, matrix in matrices:
        x = torch.tensordot(matrix.to(x.dtype), x, dims=([1], [axis])).movedim(0, axis)
    return x.contiguous()


def sample_label(label: torch.Tensor, weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """Returns the most frequent class of each new voxel (the lowest of equal ones); shape (1, *spatial_size)."""
    shares = one_hot(as_plain_tensor(label).float(), int(label.max()) + 1, dim=0)
    # Sums of weights such as 1/3 are not exact: without rounding, a tie would be decided by chance.
    shares = sample_axes(shares, weights).mul(2**16).round()
    return most_likely(shares, keepdim=True).to(label.dtype)


def sampled_grid(affine: torch.Tensor, centres: Sequence[torch.Tensor], steps: Sequence[float]) -> torch.Tensor:
    """Returns the affine of a grid with voxels ``steps`` times as large and the first at ``centres[axis][0]``."""
    to_given = torch.eye(len(steps) + 1, dtype=torch.float64)
    to_given.diagonal()[:-1] = torch.tensor(steps, dtype=torch.float64)
    to_given[:-1, -1] = torch.stack([c[0] for c in centres])
    return affine.double() @ to_given


def simulate_acquisition(
    scan: MetaTensor,
    acquisition: Acquisition,
    is_label: bool = False,
    random_state: np.random.RandomState | None = None,
) -> MetaTensor:
    """Simulates another acquisition of a scan, or of its label.

    The new grid covers the given scan's extent to half a voxel and is centred on it. Border voxels are repeated
    outside. Axes that keep their voxels are not changed.

    Args:
        scan: shape (C, *spatial_size), with an affine.
        acquisition: the acquisition to simulate.
        is_label: ``scan`` contains classes: take the most frequent one of the new voxel's volume, without noise.
        random_state: source of the noise; seeded with 0 by default.

    Returns:
        the new scan with its affine, without earlier operations to invert, as if read from a file.

    Raises:
        ValueError: If the number of axes is wrong.
    """
    spatial_dims = scan.ndim - 1
    if len(acquisition.spacing) != spatial_dims:
        raise ValueError(f"spacing must have {spatial_dims} axes, got {format_size(acquisition.spacing)}.")
    given = spacing_of(scan.affine, spatial_dims)
    steps = [s / g for s, g in zip(acquisition.spacing, given)]
    thickness = acquisition.thickness or acquisition.spacing
    widths = [t / g for t, g in zip(thickness, given)]
    offset = acquisition.offset or (0.0,) * spatial_dims
    centres, weights = [], []
    for n, step, width, shift in zip(scan.shape[1:], steps, widths, offset):
        m = max(1, round(n * step**-1))
        centres.append((n - 1) / 2 + (torch.arange(m, dtype=torch.float64) - (m - 1) / 2 + shift) * step)
        is_unchanged = m == n and width <= 1 + 1e-6 and bool((centres[-1] - torch.arange(n)).abs().max() < 1e-6)
        # A voxel's class is that of most of its volume, however far the scanner's profile reaches.
        profile, width = ("box", step) if is_label else (acquisition.profile, width)
        weights.append(None if is_unchanged else profile_weights(n, centres[-1], width, profile))
    if is_label:
        x = sample_label(scan, weights)
    else:
        x = sample_axes(as_plain_tensor(scan).float(), weights)
        if acquisition.noise:
            x = x + _noise(x, scan, acquisition.noise / math.prod(widths), random_state or np.random.RandomState(0))
    acquired = MetaTensor(x).copy_meta_from(scan)
    acquired.affine = sampled_grid(scan.affine, centres, steps)
    acquired.applied_operations = []
    return acquired


def _noise(x: torch.Tensor, scan: torch.Tensor, sd: float, random_state: np.random.RandomState) -> torch.Tensor:
    """Returns Gaussian noise for ``x``, 0 where a channel is at its minimum (a constant background).

    Args:
        x: the acquired scan, shape (C, *spatial_size).
        scan: the given one, whose intensity range (0.5 to 99.5 percentile) is the unit of the standard deviation.
        sd: standard deviation.
        random_state: source of the noise.
    """
    channels = []
    for channel, given in zip(x, as_plain_tensor(scan)):
        low, high = np.percentile(given.cpu().numpy(), [0.5, 99.5])
        noise = random_state.standard_normal(tuple(channel.shape)).astype(np.float32) * np.float32(sd * (high - low))
        channels.append(torch.from_numpy(noise).to(x.device) * (channel > given.min()))
    return torch.stack(channels)


class SimulateAcquisitiond(MapTransform):
    """Simulates the acquisition that a case's data names, for images and labels on one grid.

    One dataset can so contain a case in several acquisitions. A case without an acquisition is not changed.

    Args:
        image_keys: images, shape (C, *spatial_size), on one grid.
        label_keys: labels, shape (1, *spatial_size), on that grid.
        acquisition_key: key of the acquisition in the data: an :py:class:`Acquisition`, or a dictionary of its
            arguments.
        seed: seed of the noise; the same for every case.
    """

    def __init__(
        self,
        image_keys: KeysCollection,
        label_keys: KeysCollection = (),
        acquisition_key: str = "acquisition",
        seed: int = 0,
    ) -> None:
        super().__init__(image_keys)
        self.label_keys = ensure_tuple(label_keys)
        self.acquisition_key = acquisition_key
        self.seed = seed

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return self._simulated(data, np.random.RandomState(self.seed))

    def _simulated(self, data: Mapping[Hashable, Any], random_state: np.random.RandomState) -> dict[Hashable, Any]:
        d = dict(data)
        acquisition = d.get(self.acquisition_key)
        if acquisition is None:
            return d
        if not isinstance(acquisition, Acquisition):
            acquisition = Acquisition(**acquisition)
        for key in self.keys:
            d[key] = simulate_acquisition(d[key], acquisition, random_state=random_state)
        for key in self.label_keys:
            d[key] = simulate_acquisition(d[key], acquisition, is_label=True)
        return d


class RandSimulateAcquisitiond(Randomizable, SimulateAcquisitiond):
    """Simulates random acquisitions, for training.

    Spacings are log-uniform. Isotropic scans draw theirs from ``isotropic``; anisotropic ones draw ``in_plane`` for two
    axes and ``slices`` for a random third axis, which is never finer than the others. The grid's offset is random
    within one voxel. An acquisition in the data is used as it is; a drawn one is stored there.

    Args:
        image_keys: as in :py:class:`SimulateAcquisitiond`.
        label_keys: likewise.
        acquisition_key: likewise.
        isotropic: range of the spacing of isotropic scans, mm.
        in_plane: range of the spacing of the two finer axes of an anisotropic scan, mm.
        slices: range of the spacing of its third axis, mm.
        anisotropic_prob: probability of an anisotropic scan.
        box_prob: probability of a box profile; Gaussian otherwise.
        gap_prob: probability of gaps between the slices of an anisotropic scan.
        max_gap: largest gap, as a fraction of the slices' spacing.
        noise: range of :py:class:`Acquisition`'s noise.
    """

    def __init__(
        self,
        image_keys: KeysCollection,
        label_keys: KeysCollection = (),
        acquisition_key: str = "acquisition",
        isotropic: tuple[float, float] = (0.9, 9.0),
        in_plane: tuple[float, float] = (0.9, 2.2),
        slices: tuple[float, float] = (2.0, 11.0),
        anisotropic_prob: float = 0.5,
        box_prob: float = 0.3,
        gap_prob: float = 0.25,
        max_gap: float = 0.3,
        noise: tuple[float, float] = (0.0, 0.03),
    ) -> None:
        SimulateAcquisitiond.__init__(self, image_keys, label_keys, acquisition_key)
        self.isotropic, self.in_plane, self.slices = isotropic, in_plane, slices
        self.anisotropic_prob, self.box_prob = anisotropic_prob, box_prob
        self.gap_prob, self.max_gap = gap_prob, max_gap
        self.noise = noise

    def randomize(self, spatial_dims: int = 3) -> Acquisition:
        """Draws a random acquisition."""
        if self.R.random() < self.anisotropic_prob:
            plane, axis = self._log_uniform(self.in_plane), self.R.randint(spatial_dims)
            spacing = [plane] * spatial_dims
            spacing[axis] = max(plane, self._log_uniform(self.slices))
            thickness = list(spacing)
            if self.R.random() < self.gap_prob:
                thickness[axis] *= 1 - self.R.uniform(0, self.max_gap)
        else:
            spacing = thickness = [self._log_uniform(self.isotropic)] * spatial_dims
        profile = "box" if self.R.random() < self.box_prob else "gaussian"
        offset = tuple(self.R.uniform(-0.5, 0.5, size=spatial_dims).tolist())
        return Acquisition(tuple(spacing), profile, tuple(thickness), offset, self.R.uniform(*self.noise))

    def _log_uniform(self, limits: tuple[float, float]) -> float:
        return math.exp(self.R.uniform(*(math.log(v) for v in limits)))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        if d.get(self.acquisition_key) is None:
            d[self.acquisition_key] = self.randomize(d[self.keys[0]].ndim - 1)
        return self._simulated(d, self.R)
