"""What the header of a NIfTI file says of its grid, and whether it contradicts itself or is damaged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes
from nibabel.spatialimages import SpatialImage

from ..utils.geometry import format_size

__all__ = ["NO_PLACE", "contradiction", "damage", "lacks_place", "largest_shift", "shear", "stored_header", "unit_of"]

MAX_SHEAR = 0.5  # degrees that the network does not notice
# Largest entry of D Dᵀ - 1 for the directions D of the axes: itkNiftiImageIO.cxx, SetImageIOOrientationFromNIfTI
ITK_TOLERANCE = 1e-4
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


def stored_header(image: SpatialImage) -> nib.Nifti1Header | None:
    """Reads the header of a NIfTI file without nibabel's corrections; None for other formats."""
    if not isinstance(image.header, nib.Nifti1Header):
        return None
    holder = image.file_map.get("header", image.file_map["image"])
    with holder.get_prepare_fileobj("rb") as file:
        return type(image.header).from_fileobj(file, check=False)


NO_PLACE = "the file does not say how large its voxels are or how it is oriented: left and right may be swapped"


def lacks_place(image: SpatialImage) -> bool:
    """Whether an MGH file says that its geometry is not valid; nibabel and FreeSurfer then take a default."""
    if not isinstance(image, nib.MGHImage):
        return False
    with image.file_map["image"].get_prepare_fileobj("rb") as file:
        return int.from_bytes(file.read(30)[28:], "big", signed=True) == 0  # goodRASFlag


def damage(header: nib.Nifti1Header) -> str:
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


def shear(affine: np.ndarray, qform_code: int = 0) -> str:
    """Returns a warning if the axes of a grid are not at right angles, else an empty string.

    ITK does not read a NIfTI file whose sform is off by more than ``ITK_TOLERANCE``, unless it has a qform.

    Args:
        affine: the grid, shape (4, 4).
        qform_code: of its file, or of the file of its prediction if it is no NIfTI file.
    """
    axes = affine[:3, :3] / voxel_sizes(affine)
    degrees = float(np.degrees(np.arcsin(min(1.0, np.abs(axes.T @ axes - np.eye(3)).max()))))
    effects = []
    if degrees >= MAX_SHEAR:
        effects.append("the network takes them as if they were")
    if qform_code <= 0 and np.abs(axes @ axes.T - np.eye(3)).max() > ITK_TOLERANCE:
        effects.append("ITK (3D Slicer, ITK-SNAP) does not read a NIfTI file of such a grid that has no qform")
    if not effects:
        return ""
    return f"its axes are not at right angles, they are off by up to {degrees:.2g} degrees: {', and '.join(effects)}"


def contradiction(image: SpatialImage, affine: np.ndarray, pixdim: Sequence[float]) -> str:
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
