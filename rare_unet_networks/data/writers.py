"""Writes predictions as NIfTI files with the header of their scan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.config import PathLike
from monai.data import ImageWriter, MetaTensor, NibabelWriter
from monai.data.folder_layout import FolderLayoutBase
from monai.data.utils import to_affine_nd
from monai.utils import convert_to_numpy

from ..utils.files import replaced_as_a_whole
from .datalists import case_id, prediction_path
from .headers import largest_shift, unit_of

__all__ = ["HeaderPreservingNibabelWriter", "PredictionLayout", "saved_case"]


class PredictionLayout(FolderLayoutBase):
    """Names the files of predictions, see :py:func:`rare_unet_networks.data.prediction_path`, for ``SaveImaged``.

    Args:
        folder: folder of the predictions, created with the first of them.
        grid: their grid.
    """

    def __init__(self, folder: str, grid: str) -> None:
        self.folder = Path(folder)
        self.grid = grid

    def filename(self, subject: PathLike = "", case: str | None = None, **kwargs: Any) -> Path:
        """Returns the prediction's file for a case, or for a scan's file."""
        path = prediction_path(case_id(subject) if case is None else case, self.grid, self.folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def saved_case(meta: Mapping, saver: Any = None) -> dict[str, Any]:
    """Returns the arguments of :py:class:`PredictionLayout` for a prediction, for ``SaveImaged``.

    Args:
        meta: its metadata, with the ``case`` that :py:class:`rare_unet_networks.data.FaultTolerantDataset` noted. Other
            datasets note none: then the scan's file names the case.
        saver: MONAI's transform, not used.
    """
    return {"subject": str(meta.get("filename_or_obj", "scan")), "case": meta.get("case")}


# Fields of a NIfTI header that say where its voxels lie.
SFORM = ("srow_x", "srow_y", "srow_z")
QFORM = ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
GEOMETRY = ("dim", "pixdim", "xyzt_units", "sform_code", "qform_code", *SFORM, *QFORM)


def _scan_header(meta: Mapping) -> nib.Nifti1Header | None:
    """Makes a header with the fields in ``GEOMETRY`` from a scan's metadata; None if the scan was no NIfTI file."""
    if not set(GEOMETRY) <= set(meta):
        return None
    header = nib.Nifti1Header()
    for field in GEOMETRY:
        header[field] = np.asarray(meta[field])
    header["pixdim"] = np.asarray(meta.get("original_pixdim", meta["pixdim"]))  # transforms of MONAI change "pixdim"
    return header


class HeaderPreservingNibabelWriter(NibabelWriter):
    """Writes NIfTI files with the scan's geometry, for ``SaveImaged(writer=...)``.

    On the scan's grid both forms, both codes (0 stays 0), ``pixdim`` and the units are the scan's, field by field, so
    that every program shows the prediction on the scan. On another grid, such as that of level 0, both forms are
    the scan's, converted to that grid. Axes of a single voxel, which MONAI drops at the end of a shape, are kept: a
    scan of 36×42×1 voxels, or of 36×42×41×1 as some tools write it, gets a prediction of that shape. A file gets its
    name only when it is complete.
    """

    _header: nib.Nifti1Header | None = None

    def set_metadata(self, meta_dict: Mapping | None, resample: bool = True, **options: Any) -> None:
        if isinstance(self.data_obj, MetaTensor):
            # A label map has no channels, but MONAI 1.6 takes its first axis as one if the scan's file had channels.
            self.data_obj.meta["original_channel_dim"] = float("nan")
        while self.data_obj.ndim < len(SFORM):  # of one slice MONAI dropped the last axis, which its affine may need
            self.data_obj = self.data_obj[..., None]
        super().set_metadata(meta_dict, resample, **options)
        self._header = _scan_header(meta_dict or {})
        if self._header is not None:
            dim = [int(n) for n in self._header["dim"]]  # number of axes, then their sizes
            shape = dim[1 : 1 + dim[0]]
            # Only axes of one voxel may come or go: a prediction on another grid can have as many voxels by chance.
            if [n for n in shape if n > 1] == [n for n in np.shape(self.data_obj) if n > 1]:
                self.data_obj = self.data_obj.reshape(shape)

    def write(self, filename: PathLike, verbose: bool = False, **obj_kwargs: Any) -> None:
        if self._header is None:
            with replaced_as_a_whole(Path(filename)) as temporary:
                super().write(temporary, verbose, **obj_kwargs)
            return
        # MONAI's write would replace the forms; only the log line of its base class is needed.
        ImageWriter.write(self, filename, verbose)
        image = self.create_backend_obj(self.data_obj, affine=self.affine, dtype=self.output_dtype, **obj_kwargs)
        header = self._header_of(image.shape)
        header.set_data_dtype(image.get_data_dtype())
        image = nib.Nifti1Image(image.dataobj, header.get_best_affine(), header)
        with replaced_as_a_whole(Path(filename)) as temporary:
            nib.save(image, temporary)
        self.data_obj = image

    def _header_of(self, shape: tuple[int, ...]) -> nib.Nifti1Header:
        """Makes the header of a prediction with ``shape`` and ``self.affine`` (mm)."""
        header = self._header.copy()
        scan_shape, scan_affine = header.get_data_shape(), header.get_best_affine()
        stored = header["pixdim"].copy()
        header.set_data_shape(shape)
        header["pixdim"] = stored  # nibabel resets the axes that the shape lacks
        to_mm = np.diag([unit_of(header)[1]] * 3 + [1.0])
        affine = to_affine_nd(3, convert_to_numpy(self.affine).astype(np.float64))
        to_scan = np.linalg.inv(to_mm @ scan_affine) @ affine  # from voxels of the prediction to those of the scan
        size = [*shape[:3], 1, 1, 1][:3]
        if tuple(size) == tuple([*scan_shape[:3], 1, 1, 1][:3]) and largest_shift(np.eye(4), to_scan, size)[0] < 0.01:
            return header
        sform_code, qform_code = int(header["sform_code"]), int(header["qform_code"])
        sform, qform = header.get_sform(), header.get_qform() if qform_code > 0 else None
        pixdim = np.diag(header["pixdim"][1:4].astype(np.float64)) @ to_scan[:3, :3]
        header["pixdim"][1:4] = np.linalg.norm(pixdim, axis=0)
        if qform is not None:
            header.set_qform(qform @ to_scan, qform_code)
        if sform_code > 0:
            header.set_sform(sform @ to_scan, sform_code)
        # Codes of 0 put a grid's centre at 0, with the axes of the scan's file: any other grid needs a form.
        if largest_shift(scan_affine @ to_scan, header.get_best_affine(), size)[0] > 0.5:
            header.set_sform(scan_affine @ to_scan, sform_code or qform_code or 1)
        return header
