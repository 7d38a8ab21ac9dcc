"""Transforms for scans of several modalities: load them onto one grid, and drop channels at random."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import LoadImage, MapTransform, RandomizableTransform, SpatialResample

from ..data.datalists import case_id, place_of
from ..data.files import check_item
from ..data.scan_reader import ScanReader
from ..utils.geometry import extent_of, format_size
from ..utils.logs import SCAN_NAME
from ..utils.quality import add_warning, warnings_of
from .modality_checks import modality_warnings

__all__ = ["LoadModalitiesd", "RandDropChannelsd"]

logger = logging.getLogger(__name__)


class LoadModalitiesd(MapTransform):
    """Loads a scan of several channels from one file, or from one file per modality.

    The files of a case may have different grids. All are resampled linearly, with zeros outside, to the grid of the
    file with the smallest voxels (the first of equal ones). A modality without a file becomes a channel of zeros. The
    order of the channels is logged. Warnings (see :py:func:`modality_warnings`, and those of each file) are logged and
    stored in the metadata, where :py:class:`rare_unet_networks.transforms.ReviewPredictiond` reads them.

    Args:
        keys: paths, or paths by modality, see :py:func:`modality_datalist`.
        modalities: the modalities in the network's order of channels.
        case_key: key of the case, which names the prediction.
        strip: removes the skull of a loaded scan, see :py:class:`rare_unet_networks.transforms.SkullStripper`,
            which also checks whether the modalities lie on each other.

    Raises:
        ValueError: If a file has the wrong number of channels, does not overlap with the others, is damaged or has
            voxels that are not finite.
    """

    def __init__(
        self,
        keys: KeysCollection,
        modalities: Sequence[str],
        case_key: str = "case",
        strip: Callable[[MetaTensor], MetaTensor] | None = None,
    ) -> None:
        super().__init__(keys)
        self.modalities = list(modalities)
        self.case_key = case_key
        self.strip = strip
        self.load = LoadImage(ScanReader, ensure_channel_first=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.keys:
            load = self._load_files if isinstance(d[key], Mapping) else self._load_file
            d[key] = load(d[key], d)
        return d

    def _read(self, path: str | Sequence[str]) -> MetaTensor:
        check_item(path)
        return self.load(path)

    def _load_file(self, path: str, data: Mapping[Hashable, Any]) -> MetaTensor:
        image = self._read(path)
        if image.shape[0] != len(self.modalities):
            raise ValueError(
                f"{path}: expected the channels {', '.join(self.modalities)} in one file, or a folder with a file of "
                f"each, whose name tells which, got {image.shape[0]} channel(s)"
            )
        for modality, channel in zip(self.modalities, image):
            _check_finite(channel, modality, path)
        logger.debug(f"{path}: channels are taken as {', '.join(self.modalities)}")
        self._name(image, path, data)
        return self._checked(image, path, {m: f"channel {i}" for i, m in enumerate(self.modalities)})

    def _load_files(self, entries: Mapping[str, Any], data: Mapping[Hashable, Any]) -> MetaTensor:
        scans = {m: self._read(entries[m]) for m in self.modalities if m in entries}
        paths = {m: place_of(entry) for m, entry in entries.items()}  # of a DICOM series, its folder
        unplaced = []
        for modality, scan in scans.items():
            if scan.ndim != 4 or scan.shape[0] != 1:
                raise ValueError(
                    f"{paths[modality]}: expected one channel of {modality} on 3 axes, got {format_size(scan.shape)}"
                )
            _check_finite(scan, modality, paths[modality])
            if int(scan.meta.get("sform_code", 1)) == 0 and int(scan.meta.get("qform_code", 1)) == 0:
                unplaced.append(modality)
                logger.warning(f"{paths[modality]}: the file of {modality} does not say where it lies")
        reference = min(scans.values(), key=lambda scan: round(float(scan.pixdim.prod()), 3))
        name = next(paths[m] for m, scan in scans.items() if scan is reference)
        channels = []
        for modality in self.modalities:
            if modality not in scans:
                channels.append(torch.zeros_like(reference))
                continue
            channels.append(self._on_grid(scans[modality], reference, paths[modality], name))
        image = MetaTensor(torch.cat([c.as_tensor() for c in channels])).copy_meta_from(reference)
        files = {m: Path(paths[m]).name for m in scans}
        for modality, scan in scans.items():
            if scan is reference:
                continue  # the image has its metadata already
            for warning in warnings_of(scan.meta):
                add_warning(image.meta, f"{modality} ({files[modality]}): {warning}")
        for modality in unplaced:
            add_warning(image.meta, f"the file of {modality} ({files[modality]}) does not say where it lies")
        folder = Path(name).parent
        logger.debug(f"{folder}: files are taken as {', '.join(f'{m} {files[m]}' for m in files)}")
        self._name(image, name, data)
        return self._checked(image, str(folder), files)

    def _checked(self, image: MetaTensor, path: str, files: Mapping[str, str]) -> MetaTensor:
        """Adds the warnings of the modalities, and removes the skull if that is asked for."""
        if self.strip is not None:
            image = self.strip(image)
        for warning in modality_warnings(image.as_tensor(), files, self.modalities, was_head=self.strip is not None):
            logger.warning(f"{path}: {warning}")
            add_warning(image.meta, warning)
        return image

    def _name(self, image: MetaTensor, path: str, data: Mapping[Hashable, Any]) -> None:
        """Names the prediction by its case, which may differ from the file's name."""
        case = data.get(self.case_key, case_id(path))
        if case != case_id(path):
            # With a suffix, because MONAI's writers remove what follows the last dot. No file has this name.
            image.meta["filename_or_obj"] = str(Path(path).parent / f"{case}.nii.gz")
            image.meta[SCAN_NAME] = str(Path(path).parent / case)

    @staticmethod
    def _on_grid(scan: MetaTensor, reference: MetaTensor, path: str, name: str) -> MetaTensor:
        if scan.shape == reference.shape and torch.allclose(scan.affine, reference.affine, atol=1e-3):
            return scan
        (low, high), (start, end) = (extent_of(s.affine, s.shape[1:]) for s in (scan, reference))
        if (torch.minimum(high, end) <= torch.maximum(low, start)).any():
            raise ValueError(f"{path} and {name} lie in different places: their fields of view do not overlap")
        logger.debug(f"{path}: resampled onto the grid of {Path(name).name}")
        return SpatialResample(mode="bilinear", padding_mode="zeros")(scan, reference.affine, reference.shape[1:])


def _check_finite(scan: torch.Tensor, modality: str, path: str) -> None:
    if not torch.isfinite(scan).all():
        raise ValueError(f"{path}: {modality} has voxels that are NaN or infinite")


class RandDropChannelsd(RandomizableTransform, MapTransform):
    """Sets random channels to zero, so that a network learns to work without them; one always remains.

    Args:
        keys: images, shape (C, D, H, W).
        prob: probability that a channel is dropped; of a second one its square, and so on.
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
