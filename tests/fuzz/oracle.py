"""What is right, by SimpleITK, which reads NIfTI files with code of its own (ITK's), as Slicer and ITK-SNAP do."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import SimpleITK as sitk

SitkError = RuntimeError


def read(path: Path, link: Path) -> sitk.Image | None:
    """Reads a scan with SimpleITK by way of a link with a plain name; None if it cannot."""
    link.unlink(missing_ok=True)
    link.symlink_to(path)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        return sitk.ReadImage(str(link))
    except SitkError:
        return None


def corners(image: sitk.Image) -> np.ndarray:
    """Positions of the corners of a grid in mm, shape (8, 3)."""
    indices = itertools.product(*[(0, n - 1) for n in image.GetSize()])
    return np.array([image.TransformIndexToPhysicalPoint(index) for index in indices])


def shift(scan: sitk.Image, prediction: sitk.Image) -> float:
    """Largest distance between corners of two grids, in voxels of the scan's finest axis; infinite for other sizes."""
    if scan.GetSize() != prediction.GetSize():
        return float("inf")
    return float(np.abs(corners(scan) - corners(prediction)).max() / min(scan.GetSpacing()))


def as_3d(image: sitk.Image) -> sitk.Image:
    """The one volume of an image of four or five axes."""
    while image.GetDimension() > 3:
        if image.GetSize()[-1] != 1:
            return image
        image = image[..., 0]
    return image


def write_plain(image: sitk.Image, path: Path) -> None:
    """Writes a scan as SimpleITK understands it, with a header of SimpleITK's own."""
    sitk.WriteImage(sitk.Cast(image, sitk.sitkFloat64), str(path))


def agreement(prediction: Path, other: Path) -> float:
    """Share of voxels with the same label; 0 for other sizes."""
    labels = [sitk.GetArrayFromImage(sitk.ReadImage(str(path))).squeeze() for path in (prediction, other)]
    return float((labels[0] == labels[1]).mean()) if labels[0].shape == labels[1].shape else 0.0
