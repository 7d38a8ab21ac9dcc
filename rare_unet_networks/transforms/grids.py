"""MONAI dictionary transforms between the grids of a prediction: the scan's own and that of level 0."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Orientation
from nibabel.orientations import aff2axcodes
from torch.nn import functional as F

from ..utils.geometry import format_size, rescaled_affine
from ..utils.resampling import area_resize, as_plain_tensor

__all__ = ["ResampleToBothGridsd", "answer_key"]


def answer_key(grid: str) -> str:
    """Key of the prediction on a grid, ``"scan"`` or ``"fine"``, as in :py:class:`ResampleToBothGridsd`.

    Raises:
        ValueError: on another name.
    """
    keys = {"scan": "pred", "fine": "pred_fine"}
    if grid not in keys:
        raise ValueError(f"grid must be one of {tuple(keys)}, got {grid!r}.")
    return keys[grid]


class ResampleToBothGridsd(MapTransform):
    """Probabilities on two grids from what an inferer gave: ``pred`` on the scan's own, ``pred_fine`` on level 0's.

    If the inferer returns both predictions (a dictionary of ``pred`` and ``pred_fine``, renamed to the key) they are
    used as they are. Otherwise the missing one is computed: the one on the scan's grid as the mean of the fine voxels
    in each of its voxels (smoothed and interpolated where those are not whole), the fine one by linear interpolation or
    repetition. Sizes come from the ``route`` in a prediction's metadata, which the inferer wrote. Both results and the
    image carry it on, with the ``side`` if there is one. ``pred`` keeps the orientation the network sees (``Invertd``
    brings it back), ``pred_fine`` has the axis order of the scan's file.

    Args:
        keys: logits, shape (C, D, H, W), on either grid, or the dictionary; ``<key>_fine`` is added.
        image_key: the scan the network saw.
        bring_back: how a prediction on the scan's grid becomes a fine one, ``"linear"`` or ``"repeat"`` (the paper's
            labels).
        softmax: whether the predictions are logits still; otherwise they are probabilities.

    Raises:
        ValueError: when a prediction has no route or lies on neither grid, or on an unknown ``bring_back``.
    """

    def __init__(
        self,
        keys: KeysCollection,
        image_key: str = "image",
        bring_back: str = "linear",
        softmax: bool = True,
    ) -> None:
        super().__init__(keys)
        if bring_back not in ("linear", "repeat"):
            raise ValueError(f"bring_back must be 'linear' or 'repeat', got {bring_back!r}.")
        self.repeat = bring_back == "repeat"
        self.image_key = image_key
        self.softmax = softmax

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.keys:
            fine_key = f"{key}_fine"
            if isinstance(d[key], Mapping):
                by_name = d.pop(key)
                d.update({name.replace("pred", str(key), 1): prediction for name, prediction in by_name.items()})
            given = {k: d[k] for k in (key, fine_key) if k in d}
            notes = self._notes(next(iter(given.values())), key)
            scan_size, fine_size = notes["route"].spatial_size, notes["route"].fine_size
            # The image gets the notes as well, in a copy: Invertd gives a prediction the image's metadata.
            image = d[self.image_key] = MetaTensor(as_plain_tensor(d[self.image_key])).copy_meta_from(d[self.image_key])
            image.meta.update(notes)
            for name, prediction in given.items():
                if tuple(prediction.shape[1:]) not in (scan_size, fine_size):
                    raise ValueError(
                        f"{name} must have {format_size(scan_size)} voxels (scan) or {format_size(fine_size)} "
                        f"(fine), got {format_size(prediction.shape[1:])}."
                    )
                given[name] = self._probabilities(prediction)
            on_scan, fine = given.get(key, given.get(fine_key)), given.get(fine_key, given.get(key))
            d[key] = MetaTensor(area_resize(on_scan[None], scan_size)[0]).copy_meta_from(image)
            if self.repeat:
                fine = F.interpolate(fine[None], fine_size, mode="nearest")[0]
            fine = MetaTensor(area_resize(fine[None], fine_size)[0]).copy_meta_from(image)
            fine.affine = rescaled_affine(image.affine, scan_size, fine_size)
            fine.applied_operations = []
            axcodes = aff2axcodes(image.meta.get("original_affine", image.affine))
            d[fine_key] = Orientation(axcodes, labels=None)(fine)
        return d

    @staticmethod
    def _notes(prediction: torch.Tensor, key: Hashable) -> dict[str, Any]:
        """What the inferer noted in a prediction's metadata: ``route``, and ``side`` where it matters."""
        meta = prediction.meta if isinstance(prediction, MetaTensor) else {}
        if "route" not in meta:
            raise ValueError(f"{key} must carry the inferer's route in its metadata, got none.")
        return {name: meta[name] for name in ("route", "side") if name in meta}

    def _probabilities(self, prediction: torch.Tensor) -> torch.Tensor:
        prediction = as_plain_tensor(prediction).float()
        return prediction.softmax(dim=0) if self.softmax else prediction
