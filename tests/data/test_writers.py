"""Predictions lie where their scans lie, for nibabel and for ITK, whatever the scans' headers say."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImaged, Orientation, Orientationd, SaveImage, SaveImaged
from nibabel.orientations import aff2axcodes

from rare_unet_networks.data import HeaderPreservingNibabelReader, HeaderPreservingNibabelWriter
from rare_unet_networks.utils.geometry import rescaled_affine

from .test_readers import DATA, MNI, ROTATED, SHEARED, write

GEOMETRY = ["pixdim", "xyzt_units", "sform_code", "qform_code", "srow_x", "srow_y", "srow_z"]
GEOMETRY += [f"quatern_{axis}" for axis in "bcd"] + [f"qoffset_{axis}" for axis in "xyz"]
FINER = np.array([[0.5, 0, 0, -0.25], [0, 0.5, 0, -0.25], [0, 0, 0.5, -0.25], [0, 0, 0, 1]])
MICRONS = np.diag([1000.0, 1100, 1200, 1])
HEADERS = {
    "0/0": {},
    "0/0 with forms": {"sform": (MNI, 0), "qform": (ROTATED, 0), "pixdim": (1.1, 1.2, 1.3)},
    "0/1": {"sform": (MNI, 0), "qform": (ROTATED, 1)},
    "0/2, seconds": {"qform": (ROTATED, 2), "units": 2 | 8},
    "1/0": {"sform": (ROTATED, 1), "pixdim": (1.1, 1.2, 1.3)},
    "1/0 with another spacing in pixdim": {"sform": (MNI, 1), "pixdim": (2, 2, 2)},
    "2/1 with equal forms": {"sform": (ROTATED, 2), "qform": (ROTATED, 1)},
    "2/1 with differing forms": {"sform": (MNI, 2), "qform": (ROTATED, 1)},
    "4/1 with mirrored qform": {"sform": (MNI, 4), "qform": (np.diag([-1.0, 1, 1, 1]), 1)},
    "sheared, 2/1": {"sform": (SHEARED, 2), "qform": (ROTATED, 1)},
    "microns": {"sform": (MICRONS, 1), "qform": (MICRONS, 1), "units": 3},
}


READ = LoadImaged("image", reader=HeaderPreservingNibabelReader, ensure_channel_first=True)


def save(prediction, folder):
    SaveImaged(
        "pred",
        output_dir=folder,
        output_postfix="seg",
        output_dtype=torch.uint8,
        writer=HeaderPreservingNibabelWriter,
        resample=False,
        separate_folder=False,
        print_log=False,
    )({"pred": prediction})
    return folder / "scan_seg.nii.gz"


def on_scan(tmp_path, header, shape=DATA.shape):
    """A scan, and its prediction: where the scan is above 0.5."""
    path = write(tmp_path / "scan.nii", **header, data=DATA.reshape(shape))
    scan = LoadImaged("image", reader=HeaderPreservingNibabelReader, ensure_channel_first=True)({"image": path})[
        "image"
    ]
    return path, save((scan > 0.5).to(torch.uint8), tmp_path)


@pytest.mark.parametrize("header", HEADERS.values(), ids=list(HEADERS))
def test_nibabel_and_itk_put_a_prediction_where_they_put_its_scan(tmp_path, header):
    path, saved = on_scan(tmp_path, header)
    scan, label = nib.load(path), nib.load(saved)
    for field in GEOMETRY:
        np.testing.assert_array_equal(label.header[field], scan.header[field], err_msg=field)
    np.testing.assert_array_equal(label.affine, scan.affine)
    np.testing.assert_array_equal(label.get_fdata(), scan.get_fdata() > 0.5)
    assert label.get_data_dtype() == np.uint8
    by_itk = [sitk.ReadImage(str(p)) for p in (path, saved)]
    for get in ("GetOrigin", "GetSpacing", "GetDirection", "GetSize"):
        theirs, ours = (getattr(image, get)() for image in by_itk)
        assert ours == theirs, get
    np.testing.assert_array_equal(sitk.GetArrayFromImage(by_itk[1]), sitk.GetArrayFromImage(by_itk[0]) > 0.5)


@pytest.mark.parametrize("shape", [(10, 12, 14, 1), (10, 168, 1), (120, 14)])
def test_axes_of_one_voxel_are_kept(tmp_path, shape):
    path, saved = on_scan(tmp_path, {"sform": (ROTATED, 1), "qform": (ROTATED, 1)}, shape)
    scan, label = nib.load(path), nib.load(saved)
    assert label.shape == scan.shape == shape
    for field in GEOMETRY:
        np.testing.assert_array_equal(label.header[field], scan.header[field], err_msg=field)


@pytest.mark.parametrize("header", HEADERS.values(), ids=list(HEADERS))
def test_on_a_finer_grid_both_forms_are_carried_over(tmp_path, header):
    """Twice as fine: the first voxel's centre lies a quarter of a scan's voxel before the scan's, for both forms."""
    path = write(tmp_path / "scan.nii", **header)
    image = Orientationd("image", "RAS", labels=None)(READ({"image": path}))["image"]  # which changes meta["pixdim"]
    fine = MetaTensor(torch.ones(1, *(2 * n for n in image.shape[1:]))).copy_meta_from(image)
    fine.affine = rescaled_affine(image.affine, image.shape[1:], fine.shape[1:])
    fine.applied_operations = []
    fine = Orientation(aff2axcodes(image.meta["original_affine"]), labels=None)(fine)
    scan, label = nib.load(path), nib.load(save(fine, tmp_path))
    assert [int(label.header[f"{x}form_code"]) for x in "sq"] == [int(scan.header[f"{x}form_code"]) for x in "sq"]
    assert label.header["xyzt_units"] == scan.header["xyzt_units"]
    np.testing.assert_allclose(label.header["pixdim"][1:4], scan.header["pixdim"][1:4] / 2, rtol=1e-5)
    np.testing.assert_allclose(label.affine, scan.affine @ FINER, rtol=1e-5, atol=1e-4)
    if label.header["qform_code"] > 0:
        np.testing.assert_allclose(label.get_qform(), scan.get_qform() @ FINER, rtol=1e-5, atol=1e-4)


def test_a_grid_that_codes_of_0_cannot_describe_gets_a_form(tmp_path):
    image = READ({"image": write(tmp_path / "scan.nii")})["image"]
    assert aff2axcodes(image.affine) == ("L", "A", "S")
    label = nib.load(save(Orientation("RAS", labels=None)(image > 0), tmp_path))
    assert int(label.header["sform_code"]) == 1 and aff2axcodes(label.affine) == ("R", "A", "S")


def test_without_a_header_of_nifti_the_file_has_the_forms_of_monais_writer(tmp_path):
    image = MetaTensor(torch.ones(1, 4, 5, 6), affine=torch.as_tensor(ROTATED))
    SaveImage(tmp_path, writer=HeaderPreservingNibabelWriter, resample=False, print_log=False, separate_folder=False)(
        image
    )
    (saved,) = tmp_path.iterdir()
    np.testing.assert_allclose(nib.load(saved).affine, ROTATED, atol=1e-6)
    assert int(nib.load(saved).header["sform_code"]) == 1


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 0, 1)])
def test_one_slice_in_any_order_of_axes_keeps_its_grid(tmp_path, axis, order):
    """MONAI drops a last axis of one voxel, and with it the part of the affine that the other axes may need."""
    shape = [10, 12, 14]
    shape[axis] = 1
    affine = nib.affines.from_matvec(np.diag([1.0, 2.0, 3.0])[list(order)], [5, 6, 7])
    nib.save(nib.Nifti1Image(np.ones(shape, np.float32), affine), tmp_path / "a.nii.gz")
    save(READ({"image": str(tmp_path / "a.nii.gz")})["image"], tmp_path / "out")
    saved = nib.load(tmp_path / "out" / "a_seg.nii.gz")
    assert saved.shape == tuple(shape)
    np.testing.assert_allclose(saved.affine, affine)
