"""A NIfTI reader with the affine of nibabel, which checks the header before it reads a voxel."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import nibabel as nib
import numpy as np
from monai.config import PathLike
from monai.data import NibabelReader
from monai.utils import ensure_tuple
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes
from nibabel.spatialimages import HeaderDataError, SpatialImage

from ..utils.geometry import format_size
from .files import check_file

__all__ = ["HeaderPreservingNibabelReader"]

logger = logging.getLogger(__name__)
LAST_CODE = 5  # of qform_code and sform_code (nifti1.h, nibabel)
# Unit of length by the lowest three bits of xyzt_units (NIfTI-1 standard, nifti1.h): its name, and its length in mm.
UNITS = {0: ("unknown, taken as mm", 1.0), 1: ("metre", 1000.0), 2: ("mm", 1.0), 3: ("micron", 0.001)}


def unit_of(header: Any) -> tuple[str, float]:
    """Returns name and length (mm) of a header's unit; other formats than NIfTI and unknown codes are taken as mm."""
    if not isinstance(header, nib.Nifti1Header):
        return UNITS[2]
    code = int(header["xyzt_units"]) & 7
    return UNITS.get(code, (f"unknown code {code}, taken as mm", 1.0))


def largest_shift(affine: np.ndarray, other: np.ndarray, spatial_size: Sequence[int]) -> tuple[float, float]:
    """Computes the largest distance between the positions that two affines give a voxel of a grid.

    Args:
        affine: shape (4, 4), must be invertible.
        other: shape (4, 4), may be singular.
        spatial_size: voxels of the grid.

    Returns:
        the largest distance in voxels of ``affine`` along one axis, and the largest distance in mm.
    """
    # The difference is linear in the indices: it is largest in a corner.
    ends = np.meshgrid(*[(0, n - 1) for n in spatial_size], indexing="ij")
    corners = np.stack([*(e.ravel() for e in ends), np.ones(2 ** len(spatial_size))])
    shift = ((other - affine) @ corners)[:3]
    return float(np.abs(np.linalg.inv(affine[:3, :3]) @ shift).max()), float(np.linalg.norm(shift, axis=0).max())


def _format_affine(affine: np.ndarray) -> str:
    """Formats axis codes, spacing and origin of an affine in mm."""
    axcodes = "".join(code or "?" for code in aff2axcodes(affine))
    origin = ", ".join(f"{x:.4g}" for x in affine[:3, 3])
    return f"{axcodes}, {format_size(voxel_sizes(affine).tolist())} mm, origin ({origin}) mm"


def _stored_header(image: SpatialImage) -> nib.Nifti1Header | None:
    """Reads the header of a NIfTI file without nibabel's corrections; None for other formats."""
    if not isinstance(image.header, nib.Nifti1Header):
        return None
    holder = image.file_map.get("header", image.file_map["image"])
    with holder.get_prepare_fileobj("rb") as file:
        return type(image.header).from_fileobj(file, check=False)


def _damage(header: nib.Nifti1Header) -> str:
    """Returns what is wrong with the forms of a stored header, or an empty string.

    Readers do not agree on such a header: nibabel replaces a wrong code by 0 and a wrong handedness by 1.
    """
    codes = {name: int(header[f"{name}_code"]) for name in ("sform", "qform")}
    for name, code in codes.items():
        if code > LAST_CODE:
            return f"{name}_code must be 0 to {LAST_CODE}, got {code}"
    if codes["sform"] > 0 and not np.isfinite(header["pixdim"][1:4]).all():  # without sform it is the spacing
        return f"pixdim must be finite, got {format_size([float(s) for s in header['pixdim'][1:4]])}"
    if codes["qform"] > 0:
        numbers = [float(header[f"quatern_{axis}"]) for axis in "bcd"]
        if not sum(q * q for q in numbers) <= 1 + 3 * float(np.finfo(np.float32).eps):  # as nibabel; NaN fails, too
            return f"the qform's quaternion is longer than 1: {', '.join(f'{q:g}' for q in numbers)}"
        if not all(math.isfinite(header[f"qoffset_{axis}"]) for axis in "xyz"):
            return "the qform's offset has values that are NaN or infinite"
        qfac = float(header["pixdim"][0])
        if codes["sform"] <= 0 and qfac not in (-1, 0, 1):
            return f"the handedness of the qform, pixdim[0], must be 1 or -1, got {qfac:g}"
    return ""


def _contradiction(image: SpatialImage, affine: np.ndarray, pixdim: Sequence[float]) -> str:
    """Returns a warning if the header contradicts its sform by more than half a voxel, else an empty string.

    Args:
        image: the scan.
        affine: the affine of its sform in mm, if the sform's code is above 0.
        pixdim: voxel sizes as stored in the file.
    """
    if not isinstance(image.header, nib.Nifti1Header) or int(image.header["sform_code"]) <= 0:
        return ""
    in_mm, qform_code = unit_of(image.header)[1], int(image.header["qform_code"])
    flips = np.diag([*(-1.0 if p < 0 else 1.0 for p in pixdim), 1.0])  # some readers flip axes of a negative size
    if qform_code > 0:
        other = np.diag([in_mm] * 3 + [1.0]) @ image.header.get_qform() @ flips
        says = f"the qform (code {qform_code}) says {_format_affine(other)}"
    else:
        # Readers such as SimpleITK use the voxel size in pixdim even if there is an sform.
        sizes = [p * in_mm for p in pixdim]
        other = affine @ np.diag([*(size / s for size, s in zip(sizes, voxel_sizes(affine))), 1.0])
        says = f"pixdim says {format_size(sizes)} mm"
    voxels, distance = largest_shift(affine, other, image.shape[:3])
    if voxels <= 0.5:
        return ""
    return (
        f"the header contradicts itself by up to {distance:.3g} mm: the sform (code {int(image.header['sform_code'])}) "
        f"says {_format_affine(affine)} and is used, {says}"
    )


class HeaderPreservingNibabelReader(NibabelReader):
    """Reads NIfTI files with the affine of ``nibabel.load(file)``, in mm.

    MONAI's reader replaces the sform by the qform, even one of code 0, where its voxel size differs from ``pixdim`` by
    1e-5. This one takes the sform if its code is above 0, else the qform if its code is, else the voxel size alone. It
    converts metres and microns to mm, and refuses, before any voxel is read, what cannot be the grid of a scan. Where a
    form or ``pixdim`` contradicts the affine by more than half a voxel somewhere in the scan, it warns with both; the
    warning stands in ``meta["warnings"]``, which is empty otherwise. The header's fields are in ``meta`` as they are in
    the file, for :py:class:`rare_unet_networks.data.HeaderPreservingNibabelWriter`.

    Args:
        args: as in MONAI.
        min_spacing: smallest voxel size that is accepted, mm.
        max_spacing: largest, mm.
        max_extent: longest field of view that is accepted, mm; must be larger for scans of a whole body.
        warn: whether to log warnings; they are in the metadata in any case.
        kwargs: as in MONAI.

    Raises:
        ValueError: If the spacing is not finite or out of range, the field of view is too long, or the axes of the
            affine lie in one plane. The message contains units.

    Example::

        LoadImaged("image", reader="rare_unet_networks.data.HeaderPreservingNibabelReader", ensure_channel_first=True)
    """

    def __init__(
        self,
        *args: Any,
        min_spacing: float = 0.05,
        max_spacing: float = 50.0,
        max_extent: float = 600.0,
        warn: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.min_spacing = min_spacing
        self.max_spacing = max_spacing
        self.max_extent = max_extent
        self.warn = warn

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> Any:
        """Only stores the names, because ``LoadImage`` would hide an error raised here in the text of a traceback.

        Returns:
            the argument of :py:meth:`get_data`.
        """
        self.filenames = ensure_tuple(data)
        return [(name, {**self.kwargs, **kwargs}) for name in self.filenames]

    def get_data(self, img: Sequence[tuple[PathLike, dict]]) -> tuple[np.ndarray, dict]:
        """Opens, checks and reads the files.

        Args:
            img: what :py:meth:`read` returned.

        Raises:
            ValueError: See the class.
        """
        images = [self.open(name, **options) for name, options in img]
        warnings = [self.check(image, str(name)) for image, (name, _) in zip(images, img)]
        array, meta = super().get_data(images)
        meta["warnings"] = warnings[0]
        return array, meta

    def open(self, name: PathLike, **options: Any) -> SpatialImage:
        """Checks that a file is complete and opens it with nibabel, which reads the header but no voxels."""
        check_file(name)
        try:
            return nib.load(name, **options)
        except (ValueError, HeaderDataError) as error:  # such as a quaternion that is longer than 1
            raise ValueError(f"{name}: the header is damaged, nibabel can make no affine of it: {error}") from None

    def check(self, image: SpatialImage, name: str) -> str:
        """Raises if the grid cannot be a scan's, and warns if the header contradicts itself.

        Args:
            image: the opened file.
            name: name of the file, for messages.

        Returns:
            the warning, empty if there is none.
        """
        unit, in_mm = unit_of(image.header)
        stored = _stored_header(image)
        if stored is not None and (damage := _damage(stored)):
            raise ValueError(f"{name}: the header is damaged: {damage}")
        affine = self._get_affine(image)
        pixdim = [float(s) for s in (image.header.get_zooms()[:3] if stored is None else stored["pixdim"][1:4])]
        sizes = (voxel_sizes(affine) / in_mm).tolist()
        if isinstance(image.header, nib.Nifti1Header) and int(image.header["sform_code"]) <= 0:
            sizes = pixdim  # as in the affine, but with 0 and negative sizes, which nibabel replaces silently
        spatial_size = [int(n) for n in image.shape[:3]]
        axes = len(spatial_size)
        self.check_grid(
            name,
            affine,
            [size * in_mm for size in sizes[:axes]],
            spatial_size,
            f"the header says {format_size(sizes[:axes])}, unit {unit}",
        )
        warning = _contradiction(image, affine, pixdim) if axes == 3 else ""
        if warning and self.warn:
            logger.warning(f"{name}: {warning}")
        return warning

    def check_grid(
        self, name: str, affine: np.ndarray, spacing: Sequence[float], spatial_size: Sequence[int], header: str = ""
    ) -> None:
        """Raises if a grid cannot be a scan's.

        Args:
            name: name of the file, for messages.
            affine: its affine in mm.
            spacing: voxel size in mm, of up to three axes.
            spatial_size: voxels of these axes.
            header: what the header says, for messages.

        Raises:
            ValueError: See the class.
        """
        if not all(self.min_spacing <= s <= self.max_spacing for s in spacing):  # NaN fails, too
            raise ValueError(
                f"{name}: expected a spacing of {self.min_spacing:g} to {self.max_spacing:g} mm on every axis, got "
                f"{format_size(spacing)} mm{f' ({header})' if header else ''}"
            )
        extent = [n * s for n, s in zip(spatial_size, spacing)]
        if max(extent) > self.max_extent:
            details = f"{format_size(spatial_size)} voxels{f', {header}' if header else ''}"
            raise ValueError(
                f"{name}: expected a field of view of at most {self.max_extent:g} mm on every axis, got "
                f"{format_size(extent)} mm ({details})"
            )
        if not np.isfinite(affine).all() or (
            len(spacing) == 3 and abs(np.linalg.det(affine[:3, :3])) < 1e-3 * math.prod(voxel_sizes(affine))
        ):
            raise ValueError(f"{name}: expected an affine whose axes span a volume, got {affine[:3].tolist()}")

    def _get_affine(self, img: SpatialImage) -> np.ndarray:
        """Returns the affine in mm, whatever the unit of the file."""
        affine = super()._get_affine(img).astype(np.float64)
        affine[:3] *= unit_of(img.header)[1]
        return affine
