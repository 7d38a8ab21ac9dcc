"""Brings the modalities of cases into register, as docs/clinic.md describes: rigidly, by mutual information.

    pip install SimpleITK
    python docs/experiment/scripts/register_modalities.py cases.json registered

cases.json is a list as --input takes it: [{"case": name, "image": {"T1w": path, "FLAIR": path, …}}], paths to files or
to folders with one DICOM series, relative to the list. All modalities are moved onto the first one. The voxels stay as
they are: what is found is written into the header, so that nothing is interpolated twice. Look at the result.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from monai.data import MetaTensor
from monai.data.utils import orientation_ras_lps
from monai.transforms import LoadImage

from rare_unet_networks.data import ScanReader


def read(path: Path) -> MetaTensor:
    """A scan of shape (1, D, H, W), from a file or the DICOM series of a folder."""
    return LoadImage(ScanReader, image_only=True, ensure_channel_first=True)(path)


def as_itk(scan: MetaTensor) -> sitk.Image:
    """The image of a scan of shape (1, D, H, W) in ITK's world coordinates."""
    affine = orientation_ras_lps(np.asarray(scan.affine, dtype=np.float64))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image = sitk.GetImageFromArray(np.asarray(scan.as_tensor()[0], dtype=np.float32).transpose(2, 1, 0))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    return image


def motion(fixed: MetaTensor, moving: MetaTensor) -> np.ndarray:
    """Rigid transform, 4×4 in RAS mm, that brings ``moving`` onto ``fixed``."""
    fixed_image, moving_image = as_itk(fixed), as_itk(moving)
    start = sitk.CenteredTransformInitializer(
        fixed_image, moving_image, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.MOMENTS
    )
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentagePerLevel([0.2, 0.05], 1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 80, 0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2])
    method.SetSmoothingSigmasPerLevel([4, 2])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(start, inPlace=False)
    found = method.Execute(fixed_image, moving_image)  # from points of the fixed scan to those of the moving one
    points = np.eye(4)[:, :3]  # the unit vectors and, last, the origin
    images = np.array([found.TransformPoint(point.tolist()) for point in points])
    matrix = np.eye(4)
    matrix[:3, 3] = images[3]
    matrix[:3, :3] = (images[:3] - images[3]).T
    return orientation_ras_lps(np.linalg.inv(matrix)) @ orientation_ras_lps(np.eye(4))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path)
    parser.add_argument("output_dir", type=Path)
    args = parser.parse_args()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # so that a repetition gives the same numbers
    for entry in json.loads(args.cases.read_text()):
        folder = args.output_dir / entry["case"]
        folder.mkdir(parents=True, exist_ok=True)
        scans = {modality: read(args.cases.parent / path) for modality, path in entry["image"].items()}
        fixed = next(iter(scans.values()))
        for modality, scan in scans.items():
            moved = np.eye(4) if scan is fixed else motion(fixed, scan)
            affine = moved @ np.asarray(scan.affine, dtype=np.float64)
            image = nib.Nifti1Image(np.asarray(scan.as_tensor()[0], dtype=np.float32), affine)
            nib.save(image, folder / f"{entry['case']}_{modality}.nii.gz")
            angle = np.degrees(np.arccos(np.clip((np.trace(moved[:3, :3]) - 1) / 2, -1, 1)))
            middle = affine @ [*(np.array(image.shape) / 2), 1]
            shift = np.linalg.norm(middle - np.asarray(scan.affine) @ [*(np.array(image.shape) / 2), 1])
            print(f"{entry['case']} {modality}: turned by {angle:.1f} degrees, its middle moved by {shift:.1f} mm")


if __name__ == "__main__":
    main()
