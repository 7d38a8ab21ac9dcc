"""Removal of the skull from scans of whole heads, by the package deepbet (extra ``skull``)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor

from ..utils.logs import name_of
from ..utils.quality import SKULL, add_warning
from ..utils.switches import is_on

__all__ = ["SkullStripper", "skull_stripper"]

logger = logging.getLogger(__name__)
EXTRA = "pip install 'rare-unet-networks[skull]'"
ORDER = ("T1w", "FLAIR", "T1Gd", "T2w")  # deepbet was trained on T1w; the others serve where T1w is missing or fails
BRAIN = (0.7, 2.3)  # litres that a mask of a brain may have
MIN_OVERLAP = 0.9  # Dice of the masks of two channels


class SkullStripper:
    """Sets all voxels outside the brain to 0, in all channels of a scan.

    The mask is that of one channel: the first of ``T1w, FLAIR, T1Gd, T2w`` whose mask has the volume of a brain, else
    of any other one. The channels lie on one grid, so the mask fits all of them as well as they are registered. To
    check that, it is compared with their own masks, over their own fields of view; a small overlap is warned of. What
    was done is noted in the metadata, from which it reaches the record of the case, and is a reason for a review.

    deepbet (MIT licence; Fisch et al., Computers in Biology and Medicine 179, 2024) carries its weights and needs no
    network connection. Its networks are TorchScript programs.

    Args:
        modalities: modality of each channel.

    Raises:
        ImportError: if deepbet is not installed.
    """

    def __init__(self, modalities: Sequence[str]) -> None:
        if find_spec("deepbet") is None:
            raise ImportError(f"skull_strip true needs deepbet: {EXTRA}")
        self.modalities = list(modalities)
        self._network = None

    def __call__(self, scan: MetaTensor) -> MetaTensor:
        """Strips a scan of shape (C, D, H, W).

        Raises:
            ValueError: if no channel gives the mask of a brain.
        """
        channels = dict(zip(self.modalities, scan.as_tensor()))
        voxel = float(torch.linalg.det(scan.affine[:3, :3].double()).abs()) / 1e6
        masks, tried = {}, []
        for modality in [m for m in ORDER if m in channels] + [m for m in self.modalities if m not in ORDER]:
            channel = channels[modality]
            if channel.min() == channel.max():  # a missing modality
                continue
            mask = self.mask(channel, scan.affine)
            litres = float(mask.sum()) * voxel
            tried.append(f"{modality} {litres:.2f} l")
            if BRAIN[0] <= litres <= BRAIN[1]:
                masks[modality] = mask
        if not masks:
            raise ValueError(
                f"{name_of(scan.meta)}: deepbet finds no brain of {BRAIN[0]:g} to {BRAIN[1]:g} l ({', '.join(tried)}): "
                "remove the skull with another tool, and leave skull_strip out"
            )
        modality, mask = next(iter(masks.items()))
        stripped = MetaTensor(torch.where(mask, scan.as_tensor(), 0)).copy_meta_from(scan)
        litres = float(mask.sum()) * voxel
        stripped.meta[SKULL] = f"removed, {litres:.2f} l are left (mask of {modality} by deepbet {version('deepbet')})"
        # Always a reason for a review: deepbet was made for healthy adults, and was not measured on patients here.
        add_warning(stripped.meta, f"the skull was {stripped.meta[SKULL]}: look at the border of the brain")
        for other, its_mask in masks.items():
            both = _field_of_view(channels[modality]) & _field_of_view(channels[other])
            overlap = _dice(mask & both, its_mask & both)
            if overlap < MIN_OVERLAP:
                add_warning(
                    stripped.meta,
                    f"{other} does not lie on {modality}: their brains overlap with a Dice of {overlap:.2f} only, "
                    "register them first",
                )
        return stripped

    def mask(self, channel: torch.Tensor, affine: torch.Tensor) -> torch.Tensor:
        """Returns the mask of the brain, bool, of a channel of shape (D, H, W); empty if deepbet finds none."""
        if self._network is None:  # each process that loads scans has its own; it is not sent between them
            from deepbet import BrainExtraction

            self._network = BrainExtraction(no_gpu=True)
        data = channel.detach().cpu().float()
        image = nib.Nifti1Image(data.numpy(), np.asarray(affine.detach().cpu(), dtype=np.float64))
        try:
            mask = np.asarray(self._network.run(image)[1].dataobj) > 0
        except (AssertionError, ValueError) as error:  # its own words for a scan in which it sees no brain
            logger.debug(f"deepbet: {error}")
            return torch.zeros(channel.shape, dtype=torch.bool)
        return torch.from_numpy(mask)


def _field_of_view(channel: torch.Tensor) -> torch.Tensor:
    """Box of the voxels that are not 0; around it a channel was padded."""
    box = tuple(slice(int(i.min()), int(i.max()) + 1) for i in (channel != 0).nonzero(as_tuple=True))
    mask = torch.zeros(channel.shape, dtype=torch.bool)
    mask[box] = True
    return mask


def _dice(a: torch.Tensor, b: torch.Tensor) -> float:
    return 2 * float((a & b).sum()) / max(1.0, float(a.sum() + b.sum()))


def skull_stripper(skull_strip: bool | str, modalities: Sequence[str]) -> SkullStripper | None:
    """Returns a :py:class:`SkullStripper` if ``skull_strip`` is on, else None.

    Raises:
        ImportError: if deepbet is not installed.
        ValueError: if ``skull_strip`` is neither true nor false.
    """
    return SkullStripper(modalities) if is_on(skull_strip) else None
