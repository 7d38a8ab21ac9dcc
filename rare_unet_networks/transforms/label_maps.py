"""MONAI dictionary transform from probabilities to label maps."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from ..utils.labels import most_likely
from ..utils.resampling import as_plain_tensor

__all__ = ["AsLabelMapd"]


class AsLabelMapd(MapTransform):
    """Takes the most likely class of each voxel, as ``AsDiscreted(argmax=True)``, in a tenth of the time on a CPU.

    Args:
        keys: probabilities, shape (C, *spatial_size); they become class indices in float32, shape (1, *spatial_size).
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.keys:
            labels = most_likely(as_plain_tensor(d[key]), keepdim=True).to(torch.float32)
            d[key] = MetaTensor(labels).copy_meta_from(d[key]) if isinstance(d[key], MetaTensor) else labels
        return d
