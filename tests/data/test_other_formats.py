"""MGH, NRRD and MetaImage files that are not what they say, and the same scan read from each format."""

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import LoadImage

from rare_unet_networks.data import ScanReader, file_content, files, scan_reader
from rare_unet_networks.data.files import check_file

from .scans import VOXELS, mgh, mgz, mha, nrrd

CUT = f"12×11×10.* voxels take {VOXELS.nbytes} bytes, the file holds {VOXELS.nbytes - 4}"
OBLIQUE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.3, -0.2, 0.4) @ np.diag([1.0, 1.5, 3.0]), [-20.0, 30.0, -40.0]
)


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content)
    return path


def patched(position, form, *values):
    content = bytearray(mgh())
    struct.pack_into(form, content, position, *values)
    return bytes(content)


WHOLE = [
    ("a.mgh", mgh()),
    ("a.mgz", mgz()),
    ("B.MGZ", mgz()),
    ("tags.mgz", gzip.compress(mgh() + b"more tags")),
    ("a.nrrd", nrrd()),
    ("raw.nrrd", nrrd(encoding="raw")),
    ("u.nrrd", nrrd(type="unsigned short")),
    ("u16.nrrd", nrrd(type="uint16_t")),
    ("a.mha", mha()),
    ("raw.mha", mha(compressed=False)),
    ("u.mha", mha(ElementType="MET_USHORT")),
]


@pytest.mark.parametrize("name, content", WHOLE, ids=[name for name, _ in WHOLE])
def test_whole_files_pass(tmp_path, name, content):
    check_file(write(tmp_path, name, content))


ILL = [
    ("a.mgh", mgh()[:284], rf"12×11×10×1 voxels take {VOXELS.nbytes} bytes, the file holds 0"),
    ("a.mgh", patched(20, ">i", 9), "voxels must be real numbers, the header says type 9"),
    ("a.mgh", patched(4, ">i", -12), "the header is damaged: it claims -12×11×10×1 voxels"),
    ("a.mgh", patched(0, ">i", 2), "the content is not an MGH image but no known format"),
    ("a.mgz", gzip.compress(mgh()[:-24]), CUT),  # MGH ends with 20 bytes of parameters
    ("a.mgz", mgz()[:-9], "its compressed data end too early"),
    ("a.mgz", mgz()[:-6] + b"\0\0" + mgz()[-4:], "another checksum"),
    ("a.mgz", mgh(), "the name says .mgz, the content is not a gzip file but no known format"),
    ("a.mgz", gzip.compress(b"abc"), "the content is not an MGH image but no known format"),
    ("a.nrrd", nrrd(encoding="raw")[:-4], CUT),
    ("a.nrrd", nrrd(encoding="raw") + b"more", "holds more than the voxels that its header claims"),
    ("a.nrrd", nrrd(sizes="12 11 9"), "holds more than the voxels that its header claims"),
    ("a.nrrd", nrrd(sizes="12 11 11"), rf"12×11×11 voxels take 2904 bytes, the file holds {VOXELS.nbytes}"),
    ("a.nrrd", nrrd(sizes="12 11"), "the header is damaged: dimension 3, sizes 12×11"),
    ("a.nrrd", nrrd(sizes="12 11 x"), "sizes must be numbers, got '12 11 x'"),
    ("a.nrrd", nrrd(type="block"), "voxels must be real numbers, the header says type 'block'"),
    ("a.nrrd", nrrd(encoding="ascii"), "encoding must be raw or gzip, .* the header says 'ascii'"),
    ("a.nrrd", nrrd(data_file="a.raw"), "its voxels are in another file"),
    ("a.nrrd", nrrd()[:-9], "its compressed data end too early"),
    ("a.nrrd", nrrd()[:-6] + b"\0\0" + nrrd()[-4:], "another checksum"),
    ("a.nrrd", nrrd()[:100], "the header is damaged: it has no end"),
    ("a.nrrd", mha(), "the name says .nrrd, the content is not NRRD but MetaImage"),
    ("a.mha", mha(compressed=False)[:-4], CUT),
    ("a.mha", mha(compressed=False) + b"more", "holds more than the voxels"),
    ("a.mha", mha()[:-3], "its compressed data end too early"),
    ("a.mha", mha()[:-2] + b"\0\0", "another checksum"),
    ("a.mha", mha(ElementType="MET_FLOAT"), "12×11×10 voxels take 5280 bytes, the file holds 2640"),
    ("a.mha", mha(ElementType="MET_OTHER"), "the header says ElementType 'OTHER'"),
    ("a.mha", mha(ElementDataFile="a.raw"), "its voxels are in another file"),
    ("a.mha", nrrd(), "the name says .mha, the content is not a MetaImage but NRRD"),
    ("a.dcm", nrrd(), "the name says .dcm, the content is not DICOM but NRRD"),
]


@pytest.mark.parametrize("name, content, reason", ILL, ids=range(len(ILL)))
def test_what_is_not_what_its_name_says_is_refused_with_the_files_name_and_words(tmp_path, name, content, reason):
    path = write(tmp_path, name, content)
    with pytest.raises(ValueError, match=reason) as error:
        check_file(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


@pytest.mark.parametrize("name, content", WHOLE, ids=[name for name, _ in WHOLE])
def test_voxels_that_do_not_fit_into_memory_are_refused(tmp_path, name, content, monkeypatch):
    path = write(tmp_path, name, content)
    files._check_content.cache_clear()
    monkeypatch.setattr(file_content, "physical_memory", lambda: 8000)
    with pytest.raises(ValueError, match=r"12×11×10.* voxels: 0.0 GiB, too much"):
        check_file(path)


@pytest.mark.parametrize(
    "name, content", [("a.mgz", mgz()), ("a.nrrd", nrrd()), ("a.mha", mha())], ids=["mgz", "nrrd", "mha"]
)
def test_every_cut_of_a_compressed_file_is_noticed(tmp_path, name, content):
    path = tmp_path / name
    for end in range(0, len(content), max(1, len(content) // 60)):
        path.write_bytes(content[:end])
        files._check_content.cache_clear()
        with pytest.raises(ValueError, match=r"damaged|cut|not "):
            check_file(path)


FORMATS = [
    ("a.mgz", mgz, {}, "nibabel"),
    ("a.mgh", mgh, {}, "nibabel"),
    ("a.nrrd", nrrd, {}, "nrrd"),
    ("raw.nrrd", nrrd, {"encoding": "raw"}, "nrrd"),
    ("ras.nrrd", nrrd, {"space": "right-anterior-superior"}, "nrrd"),
    ("las.nrrd", nrrd, {"space": "LAS"}, "nrrd"),
    ("a.mha", mha, {}, "itk"),
    ("raw.mha", mha, {"compressed": False}, "itk"),
]


@pytest.mark.parametrize("name, form, options, package", FORMATS)
def test_a_scan_has_the_voxels_and_affine_of_the_same_scan_as_nifti(tmp_path, name, form, options, package):
    pytest.importorskip(package, reason=f"{name} needs {package}")
    nib.save(nib.Nifti1Image(VOXELS, OBLIQUE), tmp_path / "a.nii.gz")
    load = LoadImage(ScanReader, ensure_channel_first=True)
    nifti, scan = load(tmp_path / "a.nii.gz"), load(write(tmp_path, name, form(VOXELS, OBLIQUE, **options)))
    assert scan.shape == nifti.shape == (1, *VOXELS.shape)
    np.testing.assert_array_equal(scan.numpy(), nifti.numpy())
    np.testing.assert_allclose(scan.affine, nifti.affine, atol=1e-4)
    np.testing.assert_allclose(scan.affine, OBLIQUE, atol=1e-4)


@pytest.mark.parametrize(
    "name, content, reason",
    [
        (
            "a.nrrd",
            nrrd(space="scanner-xyz"),
            "expected a header with space directions and .*got scanner-xyz",
        ),
        ("a.nrrd", nrrd(space=None), "expected a header with space directions .*got none"),
        ("a.nrrd", nrrd(affine=np.diag([0.01, 1, 1, 1])), r"spacing of 0.05 to 50 mm on every axis, got 0.01×1×1 mm$"),
        ("a.mha", mha(affine=np.diag([1, 1, 70, 1])), r"spacing of 0.05 to 50 mm on every axis, got 1×1×70 mm$"),
        (
            "a.mha",
            mha(affine=np.diag([50, 1, 50, 1]), voxels=np.zeros((13, 11, 10), np.int16)),
            r"field of view of at most 600 mm on every axis, got 650×11×500",
        ),
    ],
)
def test_a_grid_that_cannot_be_a_scans_is_refused(tmp_path, name, content, reason):
    pytest.importorskip({".nrrd": "nrrd", ".mha": "itk"}[name[1:]])
    load, path = LoadImage(ScanReader, ensure_channel_first=True), write(tmp_path, name, content)
    with pytest.raises(ValueError, match=reason) as error:
        load(path)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize("name, content, package", [("a.nrrd", nrrd(), "pynrrd"), ("a.mha", mha(), "itk-io")])
def test_a_missing_package_is_named_in_one_line(tmp_path, name, content, package, monkeypatch):
    monkeypatch.setattr(scan_reader, "find_spec", lambda module: None)
    extra = {"pynrrd": "nrrd", "itk-io": "itk"}[package]
    reason = rf"a\.\w+: reading \.\w+ needs {package}: pip install 'rare-unet-networks\[{extra}\]'$"
    with pytest.raises(ImportError, match=reason):
        LoadImage(ScanReader)(write(tmp_path, name, content))


@pytest.mark.parametrize("name, form, package", [("a.mgz", mgz, "nibabel"), ("a.nrrd", nrrd, "nrrd")])
def test_axes_that_are_not_at_right_angles_are_warned_of_in_every_format(tmp_path, name, form, package, caplog):
    pytest.importorskip(package, reason=f"{name} needs {package}")
    load = LoadImage(ScanReader, ensure_channel_first=True)
    for shear, warning in ((0.2, "off by up to 11 degrees: the network takes them"), (0.01, "to 0.57 deg"), (0, "")):
        affine = nib.affines.from_matvec([[1, shear, 0], [0, 1, 0], [0, 0, 1]])  # atan(0.2) is 11.3 degrees
        caplog.clear()
        scan = load(write(tmp_path, name, form(VOXELS, affine)))
        assert warning in scan.meta["warnings"] and bool(warning) == bool(scan.meta["warnings"])
        assert [record.getMessage() for record in caplog.records] == (
            [f"{tmp_path / name}: {scan.meta['warnings']}"] if warning else []
        )


@pytest.mark.parametrize(
    "name, content, package, is_warned",
    [
        ("a.mgh", patched(28, ">h", 0), "nibabel", True),
        ("a.mgz", gzip.compress(patched(28, ">h", 0)), "nibabel", True),
        ("a.mgz", mgz(), "nibabel", False),
        ("a.mha", mha(TransformMatrix=None), "itk", True),
        ("a.mha", mha(ElementSpacing=None), "itk", True),
        ("a.mha", mha(), "itk", False),
    ],
)
def test_a_file_that_does_not_say_where_it_lies_is_warned_of(tmp_path, name, content, package, is_warned):
    pytest.importorskip(package, reason=f"{name} needs {package}")
    scan = LoadImage(ScanReader, ensure_channel_first=True)(write(tmp_path, name, content))
    warning = "the file does not say how large its voxels are or how it is oriented: left and right may be swapped"
    assert scan.meta["warnings"] == (warning if is_warned else "")
