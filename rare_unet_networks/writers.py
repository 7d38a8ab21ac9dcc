"""NIfTI answers with the very shape of the scan's file."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from monai.data import NibabelWriter

__all__ = ["SameShapeWriter"]


class SameShapeWriter(NibabelWriter):
    """``monai.data.NibabelWriter`` that keeps axes of a single voxel, which MONAI drops at the end of a shape.

    A scan of 36×42×1 voxels, or of 36×42×41×1 as some tools write it, gets an answer of that shape. For
    ``SaveImaged(writer=...)``.
    """

    def set_metadata(self, meta_dict: Mapping | None, resample: bool = True, **options: Any) -> None:
        super().set_metadata(meta_dict, resample, **options)
        if meta_dict is not None and "dim" in meta_dict:
            dim = [int(n) for n in np.asarray(meta_dict["dim"])]  # the header's: number of axes, then their sizes
            shape = dim[1 : 1 + dim[0]]
            if prod(shape) == np.size(self.data_obj):
                self.data_obj = self.data_obj.reshape(shape)
