"""DICOM series: which files make a volume, which contrast it has, and a reader for it."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import PydicomReader

from ..utils.errors import root_cause
from .contrasts import contrast_of
from .files import is_dicom

__all__ = ["DicomSeries", "DicomSeriesReader", "files_of_scan", "find_series", "is_dicom_file", "read_headers"]

# MONAI warns of its reader for NVIDIA's decoder each time a LoadImage is made while pydicom is installed without it.
logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader: ")

EXTRA = "pip install 'rare-unet-networks[dicom]'"
TAGS = (
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "ProtocolName",
    "Modality",
    "ImageType",
)
TAGS += ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "NumberOfFrames")
TAGS += ("EchoTime", "RepetitionTime", "InversionTime", "ContrastBolusAgent", "InstanceNumber", "SOPInstanceUID")
MIN_SLICES = 8
UNEVEN = 0.1  # fraction by which the distance of two slices may differ from the usual one
DERIVED = {"LOCALIZER": "a localizer", "PROJECTION IMAGE": "a projection", "MIP": "a projection", "MPR": "a reformat"}


def is_dicom_file(path: Path) -> bool:
    """Whether a file begins as DICOM files do; a pipe or a device is none."""
    try:
        if not path.is_file():
            return False
        with open(path, "rb") as file:
            return is_dicom(file.read(132))
    except OSError:
        return False


@dataclass(frozen=True)
class DicomSeries:
    """The files of a series, sorted by their position.

    Attributes:
        files: paths.
        headers: their headers without pixels.
    """

    files: list[str]
    headers: list[Any]

    @property
    def folder(self) -> Path:
        """Folder of the first file."""
        return Path(self.files[0]).parent

    @property
    def number(self) -> str:
        """Series number, empty if there is none."""
        return str(self.headers[0].get("SeriesNumber") or "")

    @property
    def description(self) -> str:
        """Description, or the name of the protocol."""
        head = self.headers[0]
        return str(head.get("SeriesDescription") or head.get("ProtocolName") or "")

    @property
    def slice_distance(self) -> float:
        """Distance of two slices in mm, NaN if the slices do not say where they lie."""
        places = _along_normal(self.headers)
        return float("nan") if places is None or len(places) < 2 else float(np.median(np.diff(places)))

    @property
    def contrast(self) -> str | None:
        """Contrast, see :py:func:`rare_unet_networks.data.contrasts.contrast_of`."""
        head = self.headers[0]
        words = f"{head.get('SeriesDescription') or ''} {head.get('ProtocolName') or ''}"
        names = ("EchoTime", "RepetitionTime", "InversionTime")
        times = {name: float(head[name].value) for name in names if head.get(name) not in (None, "")}
        return contrast_of(words, times, bool(head.get("ContrastBolusAgent")))

    def fault(self) -> str | None:
        """Why these files are no MR volume, or None."""
        head = self.headers[0]
        if head.get("Modality") != "MR":
            return f"its modality is {head.get('Modality') or 'not given'}, not MR"
        for word in head.get("ImageType") or ():
            if word in DERIVED:
                return f"it is {DERIVED[word]}"
        if int(head.get("NumberOfFrames") or 1) > 1:
            return "a file holds several slices (enhanced DICOM): export it with a file per slice, or as NIfTI"
        return volume_fault(self.headers)


def _numbers(header: Any, name: str) -> np.ndarray | None:
    value = header.get(name)
    return None if value in (None, "") else np.asarray(value, dtype=float)


def _along_normal(headers: Sequence[Any]) -> np.ndarray | None:
    """Positions of slices along their normal, mm; None if a header does not say where its slice lies."""
    axes = _numbers(headers[0], "ImageOrientationPatient")
    positions = [_numbers(header, "ImagePositionPatient") for header in headers]
    if axes is None or len(axes) != 6 or any(p is None or len(p) != 3 for p in positions):
        return None
    return np.stack(positions) @ np.cross(axes[:3], axes[3:])


def volume_fault(headers: Sequence[Any]) -> str | None:
    """Why slices, sorted by their position, are no evenly spaced volume, or None."""
    if len(headers) < MIN_SLICES:
        return f"it has {len(headers)} slice(s) only"
    places = _along_normal(headers)
    if places is None:
        return "a slice does not say where it lies"
    for name in ("ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"):
        values = [_numbers(header, name) for header in headers]
        if any(value is None for value in values) or not all(np.allclose(v, values[0], atol=1e-3) for v in values):
            return f"its slices differ in {name}"
    steps = np.diff(places)
    usual = float(np.median(steps))
    if usual < 0.01 or steps.min() < 0.1 * usual:
        return "several of its slices lie at one place (echoes, phases or time points)"
    if np.abs(steps - usual).max() > UNEVEN * usual:
        return f"slices are missing: their distances are {steps.min():.4g} to {steps.max():.4g} mm"
    return None


def _sorted_series(files: Sequence[str], headers: Sequence[Any]) -> DicomSeries:
    places = _along_normal(headers)
    keys = [int(header.get("InstanceNumber") or 0) for header in headers] if places is None else places
    order = sorted(range(len(files)), key=lambda i: (keys[i], files[i]))
    return DicomSeries([files[i] for i in order], [headers[i] for i in order])


def find_series(files: Sequence[Path]) -> tuple[list[DicomSeries], dict[str, str]]:
    """Groups DICOM files by their folder and series.

    Args:
        files: DICOM files.

    Returns:
        the series, and the reason by name of each file that cannot be read.

    Raises:
        ImportError: if pydicom is not installed.
    """
    if not files:
        return [], {}
    if find_spec("pydicom") is None:
        raise ImportError(f"{files[0]}: reading DICOM needs pydicom: {EXTRA}")
    from pydicom import dcmread

    groups: dict[tuple[Path, str], list[tuple[str, Any]]] = {}
    damaged: dict[str, str] = {}
    for path in sorted(files):
        try:
            header = dcmread(path, stop_before_pixels=True, specific_tags=list(TAGS))
            uid = str(header.get("SeriesInstanceUID") or "")
        except Exception as error:  # pydicom raises errors of many kinds for damaged files
            damaged[str(path)] = root_cause(error)
            continue
        groups.setdefault((path.parent, uid), []).append((str(path), header))
    return [_sorted_series(*zip(*group)) for group in groups.values()], damaged


def read_headers(files: Sequence[str]) -> list[Any]:
    """Reads all tags but the pixels of a series' files, and sorts them by their position.

    Raises:
        ImportError: if pydicom is not installed.
    """
    if find_spec("pydicom") is None:
        raise ImportError(f"{files[0]}: reading DICOM needs pydicom: {EXTRA}")
    from pydicom import dcmread

    return _sorted_series(files, [dcmread(name, stop_before_pixels=True) for name in files]).headers


class DicomSeriesReader(PydicomReader):
    """Reads the files of one series as a volume, sorted by their position along the normal of the slices.

    MONAI's reader sorts by the instance number, leaves out slices without one, and only warns of slices that differ.
    """

    def read(self, data: Sequence[str], **kwargs: Any) -> Any:
        """Reads the files.

        Args:
            data: the files of one series, in any order.
            kwargs: as in MONAI.

        Raises:
            ImportError: if pydicom is not installed.
            ValueError: if a file is damaged, or the slices are no evenly spaced volume.
        """
        if find_spec("pydicom") is None:
            raise ImportError(f"{data[0]}: reading DICOM needs pydicom: {EXTRA}")
        from pydicom import dcmread

        slices = []
        for name in data:
            try:
                slices.append(dcmread(name, **{**self.kwargs, **kwargs}))
            except Exception as error:  # pydicom raises errors of many kinds for damaged files
                raise ValueError(f"{name}: the file is damaged or cut: {root_cause(error)}") from None
        series = _sorted_series(data, slices)
        fault = series.fault()
        if fault:
            raise ValueError(f"{series.folder}: the series cannot be read: {fault}")
        for number, header in enumerate(series.headers, start=1):
            header.InstanceNumber = number  # by which MONAI sorts
        self.has_series, self.filenames = True, [series.files]
        return series.headers

    def _get_array_data(self, img: Any, filename: str) -> np.ndarray:
        try:
            return super()._get_array_data(img, filename)
        except Exception as error:  # of the decoder for the file's compression
            reason = re.sub(r"\s+", " ", root_cause(error))
            raise ValueError(f"{filename}: its pixels cannot be read: {reason}") from None


def files_of_scan(path: Path) -> list[str]:
    """Returns the files of a scan: the file itself, or those of the only DICOM series of a folder.

    Raises:
        ImportError: if pydicom is not installed.
        ValueError: if the folder does not hold exactly one series.
    """
    if not path.is_dir():
        return [str(path)]
    series, _ = find_series([p for p in sorted(path.iterdir()) if p.is_file() and is_dicom_file(p)])
    if len(series) != 1:
        raise ValueError(f"{path}: expected a folder with one DICOM series, got {len(series)}")
    return series[0].files
