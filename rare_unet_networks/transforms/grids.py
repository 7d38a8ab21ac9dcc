"""MONAI dictionary transforms between the grids an answer can lie on: the scan's own and that of level 0."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Orientation
from nibabel.orientations import aff2axcodes
from torch.nn import functional as F

from ..levels import ResolutionLevels
from ..utils.geometry import format_size, rescaled_affine
from ..utils.resampling import area_resize, as_plain_tensor

__all__ = ["ResampleToBothGridsd", "answer_key"]


def answer_key(output: str) -> str:
    """Key of the answer on the grid asked for, ``"native"`` or ``"full"``, as in :py:class:`ResampleToBothGridsd`.

    Raises:
        ValueError: on another name.
    """
    keys = {"native": "pred", "full": "pred_fine"}
    if output not in keys:
        raise ValueError(f"output must be one of {tuple(keys)}, got {output!r}.")
    return keys[output]


class ResampleToBothGridsd(MapTransform):
    """Probabilities on two grids from what an inferer gave: ``pred`` on the scan's own, ``pred_fine`` on level 0's.

    An inferer that gives both (a dictionary of ``pred`` and ``pred_fine``, renamed to the key) is taken at its word.
    Otherwise a native answer is read from a full one as the mean of the voxels it covers (smoothed and interpolated
    where those are not whole), a full one from a native one by linear interpolation or repetition. ``pred`` keeps the
    orientation the network sees (``Invertd`` brings it back), ``pred_fine`` has the axis order of the scan's file.

    Args:
        keys: logits, shape (C, D, H, W), on either grid, or the dictionary; ``<key>_fine`` is added.
        levels: the resolution levels of the task.
        image_key: the scan the network saw.
        bring_back: how a native answer becomes a full one, ``"linear"`` or ``"repeat"`` (the paper's labels).
        softmax: whether the answers are logits still; otherwise they are probabilities.

    Raises:
        ValueError: when an answer lies on neither grid, or on an unknown ``bring_back``.
    """

    def __init__(
        self,
        keys: KeysCollection,
        levels: ResolutionLevels,
        image_key: str = "image",
        bring_back: str = "linear",
        softmax: bool = True,
    ) -> None:
        super().__init__(keys)
        if bring_back not in ("linear", "repeat"):
            raise ValueError(f"bring_back must be 'linear' or 'repeat', got {bring_back!r}.")
        self.repeat = bring_back == "repeat"
        self.levels = levels
        self.image_key = image_key
        self.softmax = softmax

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        image = d[self.image_key]
        route = self.levels.route(image[None])
        native_size, fine_size = route.spatial_size, route.fine_size
        for key in self.keys:
            fine_key = f"{key}_fine"
            if isinstance(d[key], Mapping):
                answers = d.pop(key)
                d.update({name.replace("pred", str(key), 1): answer for name, answer in answers.items()})
            given = {k: self._probabilities(d[k]) for k in (key, fine_key) if k in d}
            for name, answer in given.items():
                if tuple(answer.shape[1:]) not in (native_size, fine_size):
                    raise ValueError(
                        f"{name} must have {format_size(native_size)} voxels (native) or {format_size(fine_size)} "
                        f"(full), got {format_size(answer.shape[1:])}."
                    )
            native, full = given.get(key, given.get(fine_key)), given.get(fine_key, given.get(key))
            d[key] = MetaTensor(area_resize(native[None], native_size)[0]).copy_meta_from(image)
            if self.repeat:
                full = F.interpolate(full[None], fine_size, mode="nearest")[0]
            full = MetaTensor(area_resize(full[None], fine_size)[0]).copy_meta_from(image)
            full.affine = rescaled_affine(image.affine, native_size, fine_size)
            full.applied_operations = []
            axcodes = aff2axcodes(image.meta.get("original_affine", image.affine))
            d[fine_key] = Orientation(axcodes, labels=None)(full)
        return d

    def _probabilities(self, answer: torch.Tensor) -> torch.Tensor:
        answer = as_plain_tensor(answer).float()
        return answer.softmax(dim=0) if self.softmax else answer
