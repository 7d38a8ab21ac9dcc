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
from nibabel.spatialimages import HeaderDataError, SpatialImage

from ..utils.geometry import format_size
from .files import check_file
from .headers import NO_PLACE, contradiction, damage, lacks_place, shear, stored_header, unit_of

__all__ = ["HeaderPreservingNibabelReader"]

logger = logging.getLogger(__name__)


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
            the warnings, one a line; empty if there are none.
        """
        unit, in_mm = unit_of(image.header)
        stored = stored_header(image)
        if stored is not None and (fault := damage(stored)):
            raise ValueError(f"{name}: the header is damaged: {fault}")
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
        qform_code = 0 if stored is None else int(stored["qform_code"])
        warnings = [contradiction(image, affine, pixdim), shear(affine, qform_code)] if axes == 3 else []
        return self.log(name, [NO_PLACE if lacks_place(image) else "", *warnings])

    def log(self, name: str, warnings: Sequence[str]) -> str:
        """Logs the warnings of a file that are not empty, if ``warn``, and returns them, one a line."""
        for warning in filter(None, warnings if self.warn else []):
            logger.warning(f"{name}: {warning}")
        return "\n".join(filter(None, warnings))

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
