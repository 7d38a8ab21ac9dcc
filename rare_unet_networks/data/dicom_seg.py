"""Writes a label map as a DICOM segmentation (DICOM-SEG) of the series that it was made from."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.data.utils import orientation_ras_lps

from ..utils.files import replaced_as_a_whole
from .dicom import read_headers
from .segment_codes import Code, Segment

# It logs what it copies, nine lines a case.
logging.getLogger("highdicom").setLevel(logging.WARNING)

__all__ = ["dicom_seg_path", "on_slices", "require_highdicom", "series_affine", "write_dicom_seg"]

TOLERANCE = 0.02  # voxels by which the grids of a label map and of its series may differ
SERIES_NUMBER = 900  # of a segmentation of a series without a number; of others, 100 times that number is added
# What highdicom copies from the series. Any of it may be missing, or removed by a tool that makes scans anonymous.
COPIED = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate"),
    *("StudyTime", "ReferringPhysicianName", "PositionReferenceIndicator"),
)
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")


def require_highdicom() -> None:
    """Raises if highdicom is not installed.

    Raises:
        ImportError: with the command that installs it.
    """
    if find_spec("highdicom") is None:
        raise ImportError("dicom_seg: writing DICOM-SEG needs highdicom: pip install 'rare-unet-networks[dicom]'")


def dicom_seg_path(prediction: Path) -> Path:
    """Returns the file of a prediction's DICOM segmentation."""
    return prediction.with_name(prediction.name.removesuffix(".nii.gz") + ".dcm")


def series_affine(headers: Sequence[Any]) -> np.ndarray:
    """Affine from (column, row, slice) of a series to mm in RAS.

    Args:
        headers: of its slices, sorted by their position, at least two.
    """
    first, last = (np.asarray(headers[i].ImagePositionPatient, dtype=float) for i in (0, -1))
    axes = np.asarray(headers[0].ImageOrientationPatient, dtype=float)
    spacing = np.asarray(headers[0].PixelSpacing, dtype=float)  # between rows, between columns
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = axes[:3] * spacing[1], axes[3:] * spacing[0]
    affine[:3, 2], affine[:3, 3] = (last - first) / (len(headers) - 1), first
    return orientation_ras_lps(affine)


def on_slices(label_map: nib.Nifti1Image, headers: Sequence[Any]) -> np.ndarray | None:
    """Returns a label map as slices of a series, shape (slices, rows, columns); None if it is on another grid.

    Args:
        label_map: class indices on 3 axes, which may be in another order than those of the series.
        headers: of the series' slices, sorted by their position.
    """
    size = (int(headers[0].Columns), int(headers[0].Rows), len(headers))
    mapping = np.linalg.inv(label_map.affine) @ series_affine(headers)  # voxels of the series to those of the map
    axes = np.abs(mapping[:3, :3]).argmax(axis=0)
    if sorted(axes) != [0, 1, 2] or tuple(label_map.shape[axis] for axis in axes) != size:
        return None
    exact = np.zeros((4, 4))
    exact[3, 3] = 1
    for column, axis in enumerate(axes):
        is_flipped = mapping[axis, column] < 0
        exact[axis, column] = -1 if is_flipped else 1
        exact[axis, 3] = label_map.shape[axis] - 1 if is_flipped else 0
    corners = np.array(np.meshgrid(*([0, n - 1] for n in size), [1])).reshape(4, -1)
    if np.abs((mapping - exact) @ corners).max() > TOLERANCE:
        return None
    voxels = np.asarray(label_map.dataobj).transpose(axes)
    flipped = [column for column, axis in enumerate(axes) if exact[axis, column] < 0]
    return np.flip(voxels, flipped).transpose(2, 1, 0).astype(np.uint8)


def _completed(headers: Sequence[Any]) -> Sequence[Any]:
    """Adds what highdicom copies where a header lacks it: empty text, also for dates that are none, and identifiers."""
    from pydicom.uid import generate_uid
    from pydicom.valuerep import DA, TM

    common = {name: headers[0].get(name) or generate_uid() for name in UIDS}
    for header in headers:
        for name in COPIED:
            if header.get(name) is None:
                setattr(header, name, "")
        for name, kind in (("PatientBirthDate", DA), ("StudyDate", DA), ("StudyTime", TM)):
            try:
                kind(header.get(name))
            except ValueError:  # such as 00000000, which some tools write to make scans anonymous
                setattr(header, name, "")
        for name, uid in common.items():
            setattr(header, name, uid)
        for name in ("SOPClassUID", "SOPInstanceUID"):
            if not header.get(name):
                setattr(header, name, getattr(header.file_meta, f"MediaStorage{name}"))
        if header.PatientSex not in ("M", "F", "O", ""):
            header.PatientSex = ""
        if not header.get("SliceThickness"):
            header.SliceThickness = f"{np.linalg.norm(series_affine(headers)[:3, 2]):.10g}"
    return headers


def _description(number: int, segment: Segment, algorithm: Any) -> Any:
    from highdicom.seg import SegmentDescription
    from highdicom.sr import CodedConcept

    def concept(code: Code) -> Any:
        return CodedConcept(*code)

    description = SegmentDescription(
        segment_number=number,
        segment_label=segment.label,
        segmented_property_category=concept(segment.category),
        segmented_property_type=concept(segment.type),
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
        anatomic_regions=[concept(segment.region)] if segment.region else None,
    )
    if segment.modifiers:
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [concept(code) for code in segment.modifiers]
    return description


def write_dicom_seg(
    path: Path,
    label_map: nib.Nifti1Image,
    series: Sequence[Sequence[str]],
    segments: Mapping[int, Segment],
    parameters: Mapping[str, str],
) -> None:
    """Writes a DICOM segmentation: one binary segment for each class, on the slices of a series.

    Args:
        path: the file.
        label_map: class indices.
        series: the files of each series that the label map may belong to: the first one on its grid is taken.
        segments: by class index; other classes are left out.
        parameters: what the algorithm depends on, such as the digest of its weights.

    Raises:
        ImportError: if highdicom is not installed.
        ValueError: if no series has the grid of the label map.
    """
    require_highdicom()
    import highdicom as hd
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    from .. import __version__  # imported here because the package imports this module first

    for files in series:
        headers = read_headers(files)
        voxels = on_slices(label_map, headers)
        if voxels is not None:
            break
    else:
        folders = ", ".join(str(Path(files[0]).parent) for files in series)
        raise ValueError(f"{path}: expected a DICOM series on the grid of the label map, {folders} is on another one")
    headers = _completed(headers)
    numbered = np.zeros_like(voxels)
    for number, index in enumerate(segments, start=1):
        numbered[voxels == index] = number
    algorithm = hd.AlgorithmIdentificationSequence(
        name="RARE-UNet",
        family=codes.DCM.ArtificialIntelligence,
        version=__version__,
        parameters=dict(parameters) or None,
    )
    series_number = SERIES_NUMBER + 100 * int(headers[0].get("SeriesNumber") or 0)
    written = hd.seg.Segmentation(
        source_images=headers,
        pixel_array=numbered,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(n, s, algorithm) for n, s in enumerate(segments.values(), start=1)],
        series_instance_uid=generate_uid(),
        series_number=series_number if SERIES_NUMBER <= series_number < 2**31 else SERIES_NUMBER,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="RARE-UNet",
        manufacturer_model_name="rare-unet-networks",
        software_versions=__version__,
        device_serial_number="none",
        omit_empty_frames=bool(numbered.any()),
        content_label="RARE_UNET",
        series_description="RARE-UNet segmentation",
    )
    with replaced_as_a_whole(path) as temporary:
        written.save_as(temporary)
