"""NIfTI answers under their names, with the very shape, codes and units of the scan's file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.config import PathLike
from monai.data import ImageWriter, MetaTensor, NibabelWriter
from monai.data.folder_layout import FolderLayoutBase

from ..utils.files import replaced_as_a_whole
from .datalists import case_id, prediction_path

__all__ = ["HeaderPreservingNibabelWriter", "PredictionLayout"]


class PredictionLayout(FolderLayoutBase):
    """File names of predictions, see :py:func:`rare_unet_networks.data.prediction_path`, for ``SaveImaged``.

    Args:
        folder: folder of the predictions, made with the first of them.
        grid: their grid.
    """

    def __init__(self, folder: str, grid: str) -> None:
        self.folder = Path(folder)
        self.grid = grid

    def filename(self, subject: PathLike = "", **kwargs: Any) -> Path:
        """The file of the prediction of a scan's file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return prediction_path(case_id(subject), self.grid, self.folder)


class HeaderPreservingNibabelWriter(NibabelWriter):
    """``monai.data.NibabelWriter`` that keeps axes of a single voxel, which MONAI drops at the end of a shape.

    A scan of 36×42×1 voxels, or of 36×42×41×1 as some tools write it, gets an answer of that shape. What the affine
    means (scanner, aligned, MNI space …) and the units are the scan's, too. A file appears when it is complete. For
    ``SaveImaged(writer=...)``.
    """

    _header: Mapping = {}

    def set_metadata(self, meta_dict: Mapping | None, resample: bool = True, **options: Any) -> None:
        if isinstance(self.data_obj, MetaTensor):
            # A label map has no channels: MONAI 1.6 would take its first axis for one if the scan's file had some.
            self.data_obj.meta["original_channel_dim"] = float("nan")
        super().set_metadata(meta_dict, resample, **options)
        self._header = meta_dict or {}
        if "dim" in self._header:
            dim = [int(n) for n in np.asarray(self._header["dim"])]  # the header's: number of axes, then their sizes
            shape = dim[1 : 1 + dim[0]]
            # Only axes of one voxel may come or go: an answer on another grid can have as many voxels by chance.
            if [n for n in shape if n > 1] == [n for n in np.shape(self.data_obj) if n > 1]:
                self.data_obj = self.data_obj.reshape(shape)

    def write(self, filename: PathLike, verbose: bool = False, **obj_kwargs: Any) -> None:
        if not {"sform_code", "qform_code", "xyzt_units"} <= set(self._header):
            with replaced_as_a_whole(Path(filename)) as temporary:
                super().write(temporary, verbose, **obj_kwargs)
            return
        # MONAI's write would save the file with codes of its own; of the base class only the log line is wanted.
        ImageWriter.write(self, filename, verbose)
        sform, qform, units = (int(self._header[k]) for k in ("sform_code", "qform_code", "xyzt_units"))
        image = self.create_backend_obj(self.data_obj, affine=self.affine, dtype=self.output_dtype, **obj_kwargs)
        image.set_sform(image.affine, code=sform or qform or 1)  # the scan's affine may have come from either
        image.set_qform(image.affine, code=qform)
        image.header["xyzt_units"] = units
        with replaced_as_a_whole(Path(filename)) as temporary:
            nib.save(image, temporary)
        self.data_obj = image
