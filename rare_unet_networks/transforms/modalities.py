"""Transforms of scans with several modalities: loading them onto one grid, and dropping some of them."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import LoadImage, MapTransform, RandomizableTransform, SpatialResample

from ..data.datalists import case_id
from ..data.readers import HeaderPreservingNibabelReader
from ..utils.geometry import extent_of, format_size

__all__ = ["LoadModalitiesd", "RandDropChannelsd"]

logger = logging.getLogger(__name__)


class LoadModalitiesd(MapTransform):
    """Loads a scan of several channels: a file that holds them all, or one file per modality.

    Files of one case may have grids of their own: all are brought, by their affines, onto the grid of the one with the
    smallest voxels (of equals the first modality's), linearly and with zeros outside. A modality without a file is a
    channel of zeros.

    Args:
        keys: paths, or paths by modality as of :py:func:`modality_datalist`.
        modalities: the modalities in the network's order of channels.
        case_key: entry whose value names the answer of several files.

    Raises:
        ValueError: when a file of one modality has several channels, one of all not as many as there are modalities,
            or a file does not overlap with the grid of the others.
    """

    def __init__(self, keys: KeysCollection, modalities: Sequence[str], case_key: str = "case") -> None:
        super().__init__(keys)
        self.modalities = list(modalities)
        self.case_key = case_key
        self.load = LoadImage(HeaderPreservingNibabelReader, ensure_channel_first=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.keys:
            d[key] = self._joined(d[key], d) if isinstance(d[key], Mapping) else self._whole(d[key])
        return d

    def _whole(self, path: str) -> MetaTensor:
        scan = self.load(path)
        if scan.shape[0] != len(self.modalities):
            raise ValueError(
                f"{path}: expected the channels {', '.join(self.modalities)} in one file, or a folder with a file of "
                f"each, whose name tells which, got {scan.shape[0]} channel(s)"
            )
        return scan

    def _joined(self, paths: Mapping[str, str], data: Mapping[Hashable, Any]) -> MetaTensor:
        scans = {m: self.load(paths[m]) for m in self.modalities if m in paths}
        for modality, scan in scans.items():
            if scan.ndim != 4 or scan.shape[0] != 1:
                raise ValueError(
                    f"{paths[modality]}: expected one channel of {modality} on 3 axes, got {format_size(scan.shape)}"
                )
        reference = min(scans.values(), key=lambda scan: round(float(scan.pixdim.prod()), 3))
        name = next(paths[m] for m, scan in scans.items() if scan is reference)
        channels = []
        for modality in self.modalities:
            if modality not in scans:
                channels.append(torch.zeros_like(reference))
                continue
            channels.append(self._on_grid(scans[modality], reference, paths[modality], name))
        image = MetaTensor(torch.cat([c.as_tensor() for c in channels])).copy_meta_from(reference)
        # With a suffix, since MONAI's writers take what follows the last dot of a name for one.
        image.meta["filename_or_obj"] = str(Path(name).parent / f"{data.get(self.case_key, case_id(name))}.nii.gz")
        return image

    @staticmethod
    def _on_grid(scan: MetaTensor, reference: MetaTensor, path: str, name: str) -> MetaTensor:
        if scan.shape == reference.shape and torch.allclose(scan.affine, reference.affine, atol=1e-3):
            return scan
        (low, high), (start, end) = (extent_of(s.affine, s.shape[1:]) for s in (scan, reference))
        if (torch.minimum(high, end) <= torch.maximum(low, start)).any():
            raise ValueError(f"{path} and {name} lie in different places: their fields of view do not overlap")
        logger.info(f"{path}: resampled onto the grid of {Path(name).name}")
        return SpatialResample(mode="bilinear", padding_mode="zeros")(scan, reference.affine, reference.shape[1:])


class RandDropChannelsd(RandomizableTransform, MapTransform):
    """Empties a random channel, so that a network learns to do without it; one is always left.

    Args:
        keys: images, shape (C, D, H, W).
        prob: probability that a channel goes; a second one goes with its square, and so on.
    """

    def __init__(self, keys: KeysCollection, prob: float = 0.2) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        channels = d[self.keys[0]].shape[0]
        order = self.R.permutation(channels)
        count = 0
        while count < channels - 1 and self.R.random() < self.prob:
            count += 1
        for key in self.keys:
            if count:
                d[key] = d[key].clone()
                d[key][order[:count].tolist()] = 0
        return d
