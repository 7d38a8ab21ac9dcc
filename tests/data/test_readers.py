"""Scans whose headers say several things: what is read, what is refused before it is read, what is warned of."""

import logging
import math
import re
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from monai.transforms import LoadImage

from rare_unet_networks.data import HeaderPreservingNibabelReader

DATA = np.random.default_rng(0).random((10, 12, 14)).astype(np.float32)
ROTATED = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.1, 0.2, 0.3) @ np.diag([1.1, 1.2, 1.3]), [5, 6, 7])
LPS = nib.affines.from_matvec(np.diag([-1.0, -1.0, 1.0]), [40, 50, -20])
MNI = nib.affines.from_matvec(np.eye(3), [-90, -126, -72])
ROUNDED = np.round(nib.eulerangles.euler2mat(0.02, 0.03, 0.01) @ np.diag([-1.0, -1.0, 1.0]), 3)
SHEARED = nib.affines.from_matvec([[1, 0.2, 0], [0, 1, 0], [0, 0, 1]], [1, 2, 3])


def write(path, sform=None, qform=None, pixdim=None, units=None, data=DATA):
    """A file with forms of (affine, code), pixdim and units as they are given, whether they fit each other or not."""
    image = nib.Nifti1Image(data, None)
    for form, set_form in ((qform, image.header.set_qform), (sform, image.header.set_sform)):
        if form is not None:
            set_form(*form)
    if pixdim is not None:
        image.header["pixdim"][1:4] = pixdim
    if units is not None:
        image.header["xyzt_units"] = units
    with open(path, "wb") as file:  # nibabel would not write a header of its own that it finds wrong
        file.write(image.header.binaryblock[:344] + b"n+1\0" + bytes(4))
        file.write(np.asarray(data, np.float32).tobytes(order="F"))
    with open(path, "r+b") as file:
        file.seek(108)
        file.write(np.float32(352).tobytes())
    return path


def load(path):
    return LoadImage(HeaderPreservingNibabelReader, ensure_channel_first=True)(path)


@pytest.mark.parametrize(
    "header",
    [
        {"sform": (nib.affines.from_matvec(ROUNDED, [40, 50, -20]), 1), "pixdim": (1, 1, 1)},  # 3 decimals, an LPS crop
        {"sform": (nib.affines.from_matvec(2 * np.eye(3), [5, 6, 7]), 2), "pixdim": (1, 1, 1)},
        {"sform": (MNI, 4), "qform": (ROTATED, 1)},
        {"sform": (MNI, 4), "qform": (ROTATED, 0)},
        {"qform": (ROTATED, 1)},
        {"sform": (LPS, 0), "qform": (ROTATED, 1)},
        {"sform": (LPS, 0), "qform": (ROTATED, 0)},
        {"sform": (SHEARED, 1)},
        {"sform": (SHEARED, 2), "qform": (ROTATED, 1), "units": 0},
    ],
)
def test_the_affine_is_the_one_nibabel_says(tmp_path, header):
    path = write(tmp_path / "scan.nii", **header)
    scan = load(path)
    np.testing.assert_array_equal(scan.affine, nib.load(path).affine)
    np.testing.assert_array_equal(scan.meta["original_affine"], nib.load(path).affine)
    np.testing.assert_array_equal(scan[0], DATA)


@pytest.mark.parametrize("units, factor", [(0, 1), (1, 0.001), (2, 1), (3, 1000), (2 | 8, 1), (1 | 16, 0.001)])
def test_units_are_converted_to_mm(tmp_path, units, factor):
    """In metres 1.1 mm is written as 0.0011, in microns as 1100; the codes of time stand beside."""
    scaled = ROTATED.copy()
    scaled[:3] *= factor
    path = write(tmp_path / "scan.nii", sform=(scaled, 1), qform=(scaled, 1), units=units)
    scan = load(path)
    np.testing.assert_allclose(scan.affine, ROTATED, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(sitk.ReadImage(str(path)).GetSpacing(), [1.1, 1.2, 1.3], rtol=1e-5)


def spaced(spacing):
    return nib.affines.from_matvec(np.diag(spacing), [0, 0, 0])


@pytest.mark.parametrize(
    "header, message",
    [
        ({"qform": (np.eye(4), 1), "pixdim": (1, 0, 1)}, r"got 1×0×1 mm \(the header says 1×0×1, unit unknown"),
        ({"qform": (np.eye(4), 1), "pixdim": (1, 1, -1)}, "got 1×1×-1 mm"),
        ({"pixdim": (0, 0, 0)}, "got 0×0×0 mm"),
        ({"pixdim": (1, np.nan, 1)}, "got 1×nan×1 mm"),
        ({"sform": (spaced([1, 1, 0]), 1)}, "got 1×1×0 mm"),
        ({"sform": (spaced([1, np.inf, 1]), 1)}, "expected a spacing"),
        ({"sform": (spaced([0.001] * 3), 1), "units": 2}, r"0.05 to 50 mm .*got 0.001×0.001×0.001 mm .*unit mm"),
        ({"sform": (spaced([1] * 3), 1), "units": 3}, r"got 0.001×0.001×0.001 mm \(the header says 1×1×1, unit micron"),
        ({"sform": (spaced([1] * 3), 1), "units": 1}, r"got 1000×1000×1000 mm \(the header says 1×1×1, unit metre"),
        ({"sform": (spaced([1000] * 3), 1), "units": 2}, "got 1000×1000×1000 mm .*unit mm"),
        ({"sform": ([[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], 1)}, "axes span a volume"),
    ],
)
def test_a_spacing_that_no_scan_has_is_refused_with_its_unit(tmp_path, header, message):
    with pytest.raises(ValueError, match=message) as error:
        load(write(tmp_path / "scan.nii", **header))
    assert str(error.value).startswith(f"{tmp_path / 'scan.nii'}: ") and "\n" not in str(error.value)


def test_a_field_of_view_that_no_scan_has_is_refused_before_a_voxel_is_read(tmp_path):
    """10 mm and 128³ voxels, 8 MB: at 1 mm they would be 1280³."""
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((128, 128, 128), np.float32), spaced([10] * 3)), path)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"at most 600 mm .* got 1280×1280×1280 mm .128×128×128 voxels.* 10×10×10"):
        load(path)
    assert tracemalloc.get_traced_memory()[1] < 2e6
    tracemalloc.stop()


@pytest.mark.parametrize(
    "header, warning",
    [
        ({"sform": (MNI, 4), "qform": (ROTATED, 1)}, "sform .code 4. says RAS, 1×1×1 mm, origin .-90, -126, -72"),
        (
            {"sform": (MNI, 4), "qform": (ROTATED, 1)},
            "the qform .code 1. says RAS, 1.1×1.2×1.3 mm, origin .5, 6, 7",
        ),
        ({"sform": (MNI, 4), "qform": (ROTATED, 0), "pixdim": (1, 1, 1)}, ""),
        ({"sform": (MNI, 4), "qform": (ROTATED, 0), "pixdim": (2, 1, 1)}, "by up to 9 mm: .* pixdim says 2×1×1 mm"),
        ({"sform": (MNI, 4), "qform": (MNI + np.eye(4, k=3) * 0.4, 1)}, ""),  # 0.4 voxels off
        ({"sform": (MNI, 4), "qform": (MNI + np.eye(4, k=3) * 0.6, 1)}, "by up to 0.6 mm"),
        ({"sform": (MNI, 0), "qform": (ROTATED, 1)}, ""),
        # 0.05 voxels off at the first voxel, 0.05 · 13 at the last of the longest axis.
        ({"sform": (np.diag([1, 1, 1.05, 1]), 1), "qform": (np.eye(4), 1)}, "by up to 0.65 mm"),
        ({"sform": (np.diag([1, 1, 1.03, 1]), 1), "qform": (np.eye(4), 1)}, ""),
    ],
)
def test_forms_that_differ_by_more_than_half_a_voxel_are_warned_of(tmp_path, caplog, header, warning):
    with caplog.at_level(logging.WARNING, "rare_unet_networks"):
        scan = load(write(tmp_path / "scan.nii", **header))
    if not warning:
        assert not caplog.records and scan.meta["warnings"] == ""
        return
    (record,) = caplog.records
    assert record.getMessage() == f"{tmp_path / 'scan.nii'}: {scan.meta['warnings']}"
    assert re.search(warning, record.getMessage())


def test_what_is_no_nifti_file_is_refused_before_nibabel_sees_it(tmp_path):
    (tmp_path / "scan.nii").write_bytes(b"text" * 200)
    with pytest.raises(ValueError, match=r"scan\.nii: the name says \.nii, the content is not NIfTI"):
        load(tmp_path / "scan.nii")


def changed(path, **fields):
    """A file whose header's fields are changed as they stand in it, without nibabel's corrections."""
    write(path, sform=(LPS, 1), qform=(LPS, 1))
    content = bytearray(path.read_bytes())
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    for name, value in fields.items():
        field, _, index = name.partition("__")
        if index:
            header.structarr[field][int(index)] = value
        else:
            header.structarr[field] = value
    content[:348] = header.binaryblock
    path.write_bytes(content)
    return path


DAMAGED = [
    ({"sform_code": 6}, "sform_code must be 0 to 5, got 6"),
    ({"qform_code": 2304}, "qform_code must be 0 to 5, got 2304"),
    ({"quatern_b": 1.1}, r"the qform's quaternion is longer than 1: 1.1, 0, 1"),
    ({"quatern_b": np.nan}, "the qform's quaternion is longer than 1: nan, 0, 1"),
    ({"quatern_b": 1.1, "sform_code": 0}, "nibabel can make no affine of it: w2 should be positive"),
    ({"pixdim__0": -np.inf, "sform_code": 0}, r"the handedness of the qform, pixdim\[0\], must be 1 or -1, got -inf"),
    ({"pixdim__0": 2, "sform_code": 0}, "must be 1 or -1, got 2"),
    ({"qoffset_y": np.nan}, "the qform's offset has values that are NaN or infinite"),
    ({"pixdim__2": np.inf}, "pixdim must be finite, got 1×inf×1"),
]


@pytest.mark.parametrize("fields, match", DAMAGED)
def test_forms_that_readers_read_differently_are_refused(tmp_path, fields, match):
    path = changed(tmp_path / "a.nii", **fields)
    with pytest.raises(ValueError, match=match) as error:
        load(path)
    assert str(error.value).startswith(f"{path}: the header is damaged")


@pytest.mark.parametrize("fields", [{}, {"sform_code": 5}, {"qform_code": -1}, {"pixdim__0": 2}])
def test_forms_that_readers_read_alike_are_not(tmp_path, fields):
    np.testing.assert_allclose(load(changed(tmp_path / "a.nii", **fields)).affine, LPS)


@pytest.mark.parametrize("qform_code", [0, 1])
def test_a_negative_voxel_size_by_which_some_readers_flip_an_axis_is_warned_of(tmp_path, qform_code):
    scan = load(changed(tmp_path / "a.nii", pixdim__1=-1, qform_code=qform_code))
    np.testing.assert_allclose(scan.affine, LPS)
    # 10 voxels of 1 mm: the last lies at 9 mm, or at -9 mm
    assert "contradicts itself by up to 18 mm" in scan.meta["warnings"]


def sheared(path, shear, qform_code=0):
    affine = nib.affines.from_matvec([[1, shear, 0], [0, 1, 0], [0, 0, 2]], [1, 2, 3])
    return write(
        path,
        sform=(affine, 1),
        qform=(nib.affines.from_matvec(np.diag([1, 1, 2]), [1, 2, 3]), 1) if qform_code else None,
        pixdim=(1, math.hypot(1, shear), 2),
    )


# atan(0.2) is 11.3 degrees, atan(0.0003) 0.017; ITK's limit is 1e-4, 0.0057 degrees
@pytest.mark.parametrize("shear, degrees", [(0.2, "11"), (0.02, "1.1"), (0.005, "0.29"), (3e-4, "0.017"), (1.1e-4, "")])
def test_axes_that_are_not_at_right_angles_are_warned_of(tmp_path, shear, degrees):
    path = sheared(tmp_path / "a.nii", shear)
    warning = load(path).meta["warnings"]
    assert f"not at right angles, they are off by up to {degrees}" in warning and len(warning.splitlines()) == 1
    assert ("the network takes them" in warning) == (shear > 0.01)
    assert warning.endswith("ITK (3D Slicer, ITK-SNAP) does not read a NIfTI file of such a grid that has no qform")
    with pytest.raises(RuntimeError, match="orthonormal"):
        sitk.ReadImage(str(path))


@pytest.mark.parametrize("shear, qform_code", [(9e-5, 0), (0, 0), (5e-3, 1)])
def test_axes_that_itk_reads_are_not(tmp_path, shear, qform_code):
    path = sheared(tmp_path / "a.nii", shear, qform_code)
    assert load(path).meta["warnings"] == ""
    sitk.ReadImage(str(path))


def test_the_limit_of_itk_holds_in_turned_grids(tmp_path):
    source, refused = np.random.default_rng(0), 0
    for i in range(40):
        matrix = np.eye(3)
        matrix[source.permutation(3)[:2].tolist(), source.permutation(3)[:2].tolist()] += source.uniform(0, 3e-4, 2)
        matrix = nib.eulerangles.euler2mat(*source.uniform(-3, 3, 3)) @ matrix @ np.diag(source.uniform(0.5, 4, 3))
        affine = nib.affines.from_matvec(matrix, source.uniform(-90, 90, 3))
        path = write(tmp_path / f"{i}.nii", sform=(affine, 1), pixdim=nib.affines.voxel_sizes(affine))
        try:
            sitk.ReadImage(str(path))
        except RuntimeError:
            refused += 1
            assert "ITK" in load(path).meta["warnings"]
        else:
            assert load(path).meta["warnings"] == ""
    assert 5 < refused < 35
