"""MONAI dictionary transforms between the two grids of a prediction: that of the scan and that of level 0."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Orientation, ResampleToMatchd
from nibabel.orientations import aff2axcodes
from torch.nn import functional as F

from ..inferers.head_regions import translation
from ..utils.geometry import format_size, rescaled_affine
from ..utils.resampling import area_resize, as_plain_tensor

__all__ = ["ResampleToBothGridsd", "ResampleToFineLabeld", "prediction_key"]

NOTES = ("route", "side", "side_margin", "head", "trust")  # what inferers write into the metadata of a prediction


def prediction_key(grid: str) -> str:
    """Key of the prediction on a grid, ``"scan"`` or ``"fine"``, as in :py:class:`ResampleToBothGridsd`.

    Raises:
        ValueError: if the name is another.
    """
    keys = {"scan": "pred", "fine": "pred_fine"}
    if grid not in keys:
        raise ValueError(f"grid must be one of {tuple(keys)}, got {grid!r}.")
    return keys[grid]


class ResampleToBothGridsd(MapTransform):
    """Computes probabilities on the scan's grid (``pred``) and on the grid of level 0 (``pred_fine``).

    If the inferer returned both predictions (a dictionary of ``pred`` and ``pred_fine``), they are used as they are.
    Otherwise the missing one is computed: the one on the scan's grid by averaging the fine voxels in each of its voxels
    (if these are not whole, by smoothing and interpolation); the fine one by linear interpolation or repetition.

    The sizes come from the ``route`` that the inferer wrote into the metadata. Both predictions and the image keep it,
    and ``side`` and ``trust`` if there are any. ``pred`` has the orientation of the network's input, which ``Invertd``
    inverts; ``pred_fine`` has the axis order of the scan's file. A prediction of a part of a whole head (``head`` in
    its metadata, see :py:class:`rare_unet_networks.inferers.HeadNotes`) is put into the scan's grid, with background
    around it; ``pred_fine`` covers that part only.

    Args:
        keys: logits, shape (C, D, H, W), on either grid, or a dictionary of both; ``<key>_fine`` is added.
        image_key: the network's input.
        upsample_mode: how a prediction on the scan's grid is brought to the fine one, ``"linear"`` or ``"repeat"`` (the
            paper's labels).
        softmax: whether the predictions are logits; otherwise they are probabilities.

    Raises:
        ValueError: if a prediction has no route or lies on neither grid, or ``upsample_mode`` is unknown.
    """

    def __init__(
        self,
        keys: KeysCollection,
        image_key: str = "image",
        upsample_mode: str = "linear",
        softmax: bool = True,
    ) -> None:
        super().__init__(keys)
        if upsample_mode not in ("linear", "repeat"):
            raise ValueError(f"upsample_mode must be 'linear' or 'repeat', got {upsample_mode!r}.")
        self.repeat = upsample_mode == "repeat"
        self.image_key = image_key
        self.softmax = softmax

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.keys:
            fine_key = f"{key}_fine"
            if isinstance(d[key], Mapping):
                for name, prediction in d.pop(key).items():
                    d[name.replace("pred", str(key), 1)] = prediction
            predictions = {k: d[k] for k in (key, fine_key) if k in d}
            notes = self._notes(next(iter(predictions.values())), key)
            scan_size, fine_size = notes["route"].spatial_size, notes["route"].fine_size
            # Invertd replaces the metadata of a prediction by that of the image, so a copy of the image gets the notes.
            image = d[self.image_key] = MetaTensor(as_plain_tensor(d[self.image_key])).copy_meta_from(d[self.image_key])
            image.meta.update(notes)
            affine = image.affine
            if "head" in notes:  # not the prediction's affine: MONAI Label's decollate_batch takes it apart
                affine = affine.double() @ translation(notes["head"].start).to(affine.device)
            for name, prediction in predictions.items():
                if tuple(prediction.shape[1:]) not in (scan_size, fine_size):
                    raise ValueError(
                        f"{name} must have {format_size(scan_size)} voxels (scan) or {format_size(fine_size)} "
                        f"(fine), got {format_size(prediction.shape[1:])}."
                    )
                predictions[name] = self._probabilities(prediction)
            on_scan = predictions.get(key, predictions.get(fine_key))
            fine = predictions.get(fine_key, predictions.get(key))
            on_scan = area_resize(on_scan[None], scan_size)[0]
            if "head" in notes:
                on_scan = _in_background(on_scan, notes["head"].start, notes["head"].spatial_size)
            d[key] = MetaTensor(on_scan).copy_meta_from(image)
            if self.repeat:
                fine = F.interpolate(fine[None], fine_size, mode="nearest")[0]
            fine = MetaTensor(area_resize(fine[None], fine_size)[0]).copy_meta_from(image)
            fine.affine = rescaled_affine(affine, scan_size, fine_size)
            fine.applied_operations = []  # Invertd must not change it
            axcodes = aff2axcodes(image.meta.get("original_affine", image.affine))
            d[fine_key] = Orientation(axcodes, labels=None)(fine)
        return d

    @staticmethod
    def _notes(prediction: torch.Tensor, key: Hashable) -> dict[str, Any]:
        """The inferer's entries in the metadata of a prediction: ``route``, and the others of ``NOTES`` that it has."""
        meta = prediction.meta if isinstance(prediction, MetaTensor) else {}
        if "route" not in meta:
            raise ValueError(f"{key} must carry the inferer's route in its metadata, got none.")
        return {name: meta[name] for name in NOTES if name in meta}

    def _probabilities(self, prediction: torch.Tensor) -> torch.Tensor:
        prediction = as_plain_tensor(prediction).float()
        return prediction.softmax(dim=0) if self.softmax else prediction


class ResampleToFineLabeld(ResampleToMatchd):
    """``monai.transforms.ResampleToMatchd`` that leaves a case as it is that has no label on the grid of level 0.

    Args:
        keys: prediction on the grid of level 0.
        key_dst: label on that grid; may be absent, see :py:class:`rare_unet_networks.transforms.FineLabeld`.
        mode: interpolation.
        kwargs: further arguments as in MONAI.
    """

    def __init__(
        self, keys: KeysCollection = "pred_fine", key_dst: str = "label_fine", mode: str = "nearest", **kwargs: Any
    ) -> None:
        super().__init__(keys, key_dst, mode=mode, **kwargs)

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        return super().__call__(data, lazy=lazy) if self.key_dst in data else dict(data)


def _in_background(part: torch.Tensor, start: Sequence[int], spatial_size: Sequence[int]) -> torch.Tensor:
    """Probabilities, background first, of a part of a scan, with certain background in the rest of it."""
    widths = []
    for first, n, whole in reversed(list(zip(start, part.shape[1:], spatial_size))):  # F.pad starts at the last axis
        widths += [first, whole - first - n]
    return torch.cat([F.pad(part[:1], widths, value=1.0), F.pad(part[1:], widths)])
