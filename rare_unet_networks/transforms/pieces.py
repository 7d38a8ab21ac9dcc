"""MONAI dictionary transform that removes stray pieces of a label map."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from ..utils.components import largest_component
from ..utils.labels import count_labels, is_one_of
from ..utils.resampling import as_plain_tensor

__all__ = ["KeepLargestPieced"]


class KeepLargestPieced(MapTransform):
    """Keeps the largest connected piece of a structure, all its classes together, and sets the others to background.

    In a whole head (``head`` in the metadata, see :py:class:`rare_unet_networks.inferers.HeadNotes`) it keeps one piece
    for each side. ``meta["removed"]`` says what was removed: ``pieces``, ``voxels`` and ``percent`` of the volume, on
    the finest grid of the prediction. If that is more than ``max_percent``, ``meta["review"]`` gets a reason. Apply it
    after ``ReviewPredictiond`` and ``AsLabelMapd``.

    Args:
        keys: label maps, shape (1, *spatial_size); ``<key>_fine``, if it exists, is treated likewise.
        class_names: names of the classes above background, in order.
        is_on: whether anything is removed.
        max_percent: largest part of the volume that may be removed without a reason for a review.
    """

    def __init__(
        self, keys: KeysCollection, class_names: Sequence[str], is_on: bool = True, max_percent: float = 10.0
    ) -> None:
        super().__init__(keys)
        self.class_names = list(class_names)
        self.is_on = is_on
        self.max_percent = max_percent

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        if not self.is_on:
            return d
        for key in self.keys:
            names = [name for name in (key, f"{key}_fine") if name in d]
            classes = self._classes(d[key])
            finest = d[names[-1]]
            d[names[-1]], removed = self._keep(finest, classes)
            for name in names[:-1]:  # the finest grid says what is a piece
                if _is_same(d[name], finest):  # at level 0 the two grids are the same
                    d[name] = MetaTensor(as_plain_tensor(d[names[-1]]).clone()).copy_meta_from(d[name])
                else:
                    d[name], _ = self._keep(d[name], classes, d[names[-1]])
            review = self._reasons(finest, d[names[-1]], classes, removed)
            for name in names:
                d[name].meta["removed"] = removed
                d[name].meta["review"] = [*d[name].meta.get("review", ()), *review]
        return d

    def _classes(self, prediction: torch.Tensor) -> dict[str, dict[int, str]]:
        """Classes by index, by side; of a crop under one name."""
        head = prediction.meta.get("head") if isinstance(prediction, MetaTensor) else None
        if head is None:
            return {"": dict(enumerate(self.class_names, start=1))}
        classes: dict[str, dict[int, str]] = {side: {} for side in head.sides}
        for index, name in head.classes().items():
            classes[name.split()[0]][index] = name
        return classes

    def _keep(
        self, prediction: MetaTensor, classes: Mapping[str, Mapping[int, str]], finest: MetaTensor | None = None
    ) -> tuple[MetaTensor, dict[str, Any]]:
        """A label map without its stray pieces, and what was removed.

        On a coarse grid a thin structure falls apart. There, every piece stays that has a voxel of the piece that was
        kept on the finest grid.
        """
        labels = as_plain_tensor(prediction)[0]
        kept = torch.zeros_like(labels)
        pieces = 0
        for of_side in classes.values():
            mask = is_one_of(labels, of_side)
            seeds = None if finest is None else _voxels_of(finest, list(of_side), prediction)
            largest, others = largest_component(mask, seeds)
            kept[largest] = labels[largest]
            pieces += others
        total = len(labels[labels > 0])
        voxels = total - len(kept[kept > 0])
        removed = {"pieces": pieces, "voxels": voxels, "percent": 100 * voxels / max(1, total)}
        return MetaTensor(kept[None]).copy_meta_from(prediction), removed

    def _reasons(
        self,
        before: torch.Tensor,
        kept: torch.Tensor,
        classes: Mapping[str, Mapping[int, str]],
        removed: Mapping[str, Any],
    ) -> list[str]:
        if not removed["voxels"]:
            return []
        reasons = []
        if removed["percent"] > self.max_percent:
            reasons.append(
                f"{removed['pieces']} stray piece(s) with {removed['percent']:.0f} % of the volume were removed: the "
                "network may have been misled"
            )
        names = {index: name for of_side in classes.values() for index, name in of_side.items()}
        counts = [count_labels(as_plain_tensor(labels), max(names) + 1) for labels in (before, kept)]
        gone = [name for index, name in names.items() if counts[0][index] and not counts[1][index]]
        if gone:
            reasons.append(f"without the stray pieces no voxel is {', '.join(gone)}")
        return reasons


def _is_same(label_map: MetaTensor, finest: MetaTensor) -> bool:
    """Whether two label maps have the same voxels at the same places."""
    same_grid = label_map.shape == finest.shape and torch.allclose(label_map.affine, finest.affine, atol=1e-4)
    return same_grid and torch.equal(as_plain_tensor(label_map), as_plain_tensor(finest))


def _voxels_of(finest: MetaTensor, labels: Sequence[int], coarse: MetaTensor) -> torch.Tensor:
    """Mask of the voxels of a coarse grid in which the centres of a finer grid's labelled voxels lie."""
    inside = is_one_of(as_plain_tensor(finest)[0], labels)
    to_coarse = torch.linalg.inv(coarse.affine.double()) @ finest.affine.double()
    indices = inside.nonzero().double().cpu() @ to_coarse[:-1, :-1].cpu().T + to_coarse[:-1, -1].cpu()
    spatial_size = torch.tensor(coarse.shape[1:])
    indices = indices.round().long()
    indices = indices[((indices >= 0) & (indices < spatial_size)).all(dim=1)]
    mask = torch.zeros(coarse.shape[1:], dtype=torch.bool, device=coarse.device)
    mask[tuple(indices.T)] = True
    return mask
