"""A reader for all formats of scans, which chooses one of MONAI's readers."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from monai.config import PathLike
from monai.data import ITKReader, NrrdReader
from monai.utils import MetaKeys, SpaceKeys
from nibabel.affines import voxel_sizes

from .dicom import DicomSeriesReader, is_dicom_file
from .files import check_file, suffix_of
from .headers import NO_PLACE, shear
from .other_formats import metaimage_fields
from .readers import HeaderPreservingNibabelReader

__all__ = ["ScanReader"]

# Module and extra that a format needs.
NEEDED = {".nrrd": ("nrrd", "pynrrd", "nrrd"), ".mha": ("itk", "itk-io", "itk")}
TO_RAS = {
    "left-posterior-superior": (-1.0, -1.0, 1.0),
    "right-anterior-superior": (1.0, 1.0, 1.0),
    "left-anterior-superior": (-1.0, 1.0, 1.0),
}
TO_RAS |= {"".join(word[0] for word in name.split("-")): signs for name, signs in TO_RAS.items()}
GEOMETRY = (MetaKeys.AFFINE, MetaKeys.ORIGINAL_AFFINE, MetaKeys.SPATIAL_SHAPE, MetaKeys.ORIGINAL_CHANNEL_DIM)


class ScanReader(HeaderPreservingNibabelReader):
    """Reads NIfTI, MGH, NRRD and MetaImage files and DICOM series, with the affine in mm to RAS.

    NIfTI and MGH are read as by :py:class:`HeaderPreservingNibabelReader`, NRRD by MONAI's ``NrrdReader``, MetaImage by
    its ``ITKReader``, and DICOM by :py:class:`DicomSeriesReader`. The limits of spacing and extent hold for all.

    A scan is one file, or the files or the folder of one DICOM series.

    Args:
        args: as in :py:class:`HeaderPreservingNibabelReader`.
        kwargs: likewise.

    Raises:
        ImportError: if a format needs a package that is not installed.
        ValueError: if a file is damaged, or its grid cannot be a scan's.
    """

    def get_data(self, img: Sequence[tuple[PathLike, dict]]) -> tuple[np.ndarray, dict]:
        """Opens, checks and reads the files."""
        names = [str(name) for name, _ in img]
        if len(names) == 1 and Path(names[0]).is_dir():
            names = [str(path) for path in sorted(Path(names[0]).iterdir()) if is_dicom_file(path)] or names
        for name in names:
            check_file(name)
        suffix = suffix_of(names[0])
        if is_dicom_file(Path(names[0])):
            array, meta = _read_dicom(names)
        elif suffix == ".nrrd":
            array, meta = _read_nrrd(names[0])
        elif suffix == ".mha":
            array, meta = _read_metaimage(names[0])
        else:
            return super().get_data(img)
        affine = np.asarray(meta[MetaKeys.ORIGINAL_AFFINE], dtype=np.float64)
        if affine.shape != (4, 4):
            raise ValueError(f"{names[0]}: expected 3 axes, got {affine.shape[0] - 1}")
        shape = [int(n) for n in meta[MetaKeys.SPATIAL_SHAPE]]
        has_no_place = suffix == ".mha" and _lacks_place(names[0])
        self.check_grid(names[0], affine, voxel_sizes(affine).tolist(), shape)
        # Without fields that the program which wrote the file has copied from another one.
        meta = {key: meta[key] for key in GEOMETRY}
        return array, {
            **meta,
            MetaKeys.SPACE: SpaceKeys.RAS,
            "warnings": self.log(names[0], [NO_PLACE if has_no_place else "", shear(affine)]),
        }


def _require(name: str, suffix: str) -> None:
    module, package, extra = NEEDED[suffix]
    if find_spec(module) is None:
        raise ImportError(f"{name}: reading {suffix} needs {package}: pip install 'rare-unet-networks[{extra}]'")


def _read_dicom(names: Sequence[str]) -> tuple[np.ndarray, dict]:
    reader = DicomSeriesReader()
    return reader.get_data(reader.read(names))


def _read_nrrd(name: str) -> tuple[np.ndarray, dict]:
    _require(name, ".nrrd")
    reader = NrrdReader(affine_lps_to_ras=False)
    image = reader.read(name)
    space = str(image.header.get("space", "")).lower()
    if space not in {key.lower() for key in TO_RAS} or "space directions" not in image.header:
        raise ValueError(
            f"{name}: expected a header with space directions and a space of {', '.join(list(TO_RAS)[:3])}, "
            f"got {space or 'none'}"
        )
    array, meta = reader.get_data(image)
    signs = next(signs for key, signs in TO_RAS.items() if key.lower() == space)
    meta[MetaKeys.ORIGINAL_AFFINE] = np.diag([*signs, 1.0]) @ meta[MetaKeys.ORIGINAL_AFFINE]
    meta[MetaKeys.AFFINE] = meta[MetaKeys.ORIGINAL_AFFINE].copy()
    return array, meta


def _lacks_place(name: str) -> bool:
    """Whether a MetaImage lacks its voxel size or its directions; ITK then takes 1 mm along the axes of LPS."""
    with open(name, "rb") as file:
        fields = metaimage_fields(file)
    needed = (("elementspacing", "elementsize"), ("transformmatrix", "rotation", "orientation"))
    return any(fields.keys().isdisjoint(names) for names in needed)


def _read_metaimage(name: str) -> tuple[np.ndarray, dict]:
    _require(name, ".mha")
    reader = ITKReader()
    return reader.get_data(reader.read(name))
