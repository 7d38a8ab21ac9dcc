"""Gives each modality of a training scan an acquisition of its own, as clinics have it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTransform

from ..utils.resampling import as_plain_tensor
from .acquisition import RandSimulateAcquisitiond, profile_weights, sample_axes, simulate_acquisition

__all__ = ["RandModalityAcquisitionsd"]


class RandModalityAcquisitionsd(RandomizableTransform, MapTransform):
    """Simulates an own random acquisition of each channel and resamples it linearly to the grid of the scan.

    A clinic's T1w may have sagittal slices of 5 mm, its FLAIR axial ones, and its T1Gd none. Loading them brings all to
    one grid (:py:class:`rare_unet_networks.transforms.LoadModalitiesd`); this is what the network sees then.

    Args:
        keys: images, shape (C, *spatial_size); labels keep their grid and need no change.
        acquire: draws the acquisitions.
        prob: probability that a scan is changed.
        channel_prob: probability that a channel of such a scan is changed.
    """

    def __init__(
        self, keys: KeysCollection, acquire: RandSimulateAcquisitiond, prob: float = 0.3, channel_prob: float = 0.7
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.acquire = acquire
        self.channel_prob = channel_prob

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        self.randomize(None)
        if not self._do_transform:
            return d
        self.acquire.set_random_state(seed=int(self.R.randint(2**31 - 1)))
        for key in self.keys:
            image = d[key]
            channels = []
            for channel in image:
                scan = MetaTensor(as_plain_tensor(channel)[None], affine=image.affine)
                if self.R.random() < self.channel_prob:
                    scan = self._acquired(scan)
                channels.append(as_plain_tensor(scan))
            d[key] = MetaTensor(torch.cat(channels)).copy_meta_from(image)
        return d

    def _acquired(self, scan: MetaTensor) -> MetaTensor:
        acquisition = self.acquire.randomize(scan.ndim - 1)
        acquired = simulate_acquisition(scan, acquisition, random_state=self.acquire.R)
        to_acquired = torch.linalg.inv(acquired.affine.double()) @ scan.affine.double()
        weights = []
        for axis, n in enumerate(scan.shape[1:]):
            centres = to_acquired[axis, -1] + to_acquired[axis, axis] * torch.arange(n, dtype=torch.float64)
            weights.append(profile_weights(acquired.shape[1 + axis], centres, 1.0, "gaussian"))
        return sample_axes(as_plain_tensor(acquired), weights)
