"""DICOM series, written here from a volume: read as the same volume, or left out with a reason."""

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import LoadImage, Orientation

from rare_unet_networks.data import ScanReader, dicom, input_datalist
from rare_unet_networks.data.datalists import FAILURE

from .scans import nrrd, write_series
from .test_other_formats import OBLIQUE

pydicom = pytest.importorskip("pydicom", reason="DICOM needs pydicom")
VOXELS = np.random.default_rng(1).integers(0, 1000, (12, 11, 10)).astype(np.int16)
LOAD = LoadImage(ScanReader, ensure_channel_first=True)


def items(folder, **options):
    return [(item["case"], item["image"]) for item in input_datalist(folder, **options)]


def in_ras(scan):
    return Orientation("RAS", labels=None)(scan)


@pytest.mark.parametrize("affine", [np.eye(4), OBLIQUE, np.diag([-1.0, 2.0, 3.0, 1.0]), OBLIQUE[:, [2, 0, 1, 3]]])
@pytest.mark.parametrize("order", [None, [3, 1, 2, 0, 9, 8, 7, 6, 5, 4]])
def test_a_series_has_the_voxels_and_affine_of_the_same_scan_as_nifti(tmp_path, affine, order):
    nib.save(nib.Nifti1Image(VOXELS, affine), tmp_path / "a.nii.gz")
    write_series(tmp_path / "series", VOXELS, affine, order)
    ((case, files),) = items(tmp_path / "series")
    assert case == "series" and len(files) == 10
    nifti, scan = in_ras(LOAD(tmp_path / "a.nii.gz")), in_ras(LOAD(files))
    np.testing.assert_array_equal(scan.numpy(), nifti.numpy())
    np.testing.assert_allclose(scan.affine, nifti.affine, atol=1e-4)
    folder = in_ras(LOAD(tmp_path / "series"))  # other programs give the folder
    np.testing.assert_array_equal(folder.numpy(), nifti.numpy())


def test_intensities_are_rescaled_and_a_series_without_instance_numbers_is_sorted_by_position(tmp_path):
    write_series(tmp_path, VOXELS, np.eye(4), InstanceNumber=None, RescaleSlope=2, RescaleIntercept=-3)
    ((_, files),) = items(tmp_path)
    np.testing.assert_array_equal(in_ras(LOAD(files))[0].numpy(), 2 * VOXELS - 3.0)


def test_a_folder_gives_each_t1_series_and_names_the_others_with_their_reason(tmp_path, caplog):
    flat = tmp_path / "p1"
    for number, words in ((1, "localizer"), (2, "AX T2 TSE"), (3, "t1_mprage"), (4, "T1 SE +C"), (5, "research")):
        folder = write_series(tmp_path / "all", VOXELS, np.eye(4), SeriesNumber=number, SeriesDescription=words)
        flat.mkdir(exist_ok=True)
        for path in folder.iterdir():
            path.rename(flat / f"{number}_{path.stem}")  # without suffix, as many exports
        folder.rmdir()
    write_series(tmp_path / "p2" / "T1", VOXELS, np.eye(4))
    (flat / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    assert [case for case, _ in items(tmp_path)] == ["p1/series3", "p1/series4", "p2/T1"]
    for number, words, reason in (
        (1, "localizer", "it is a localizer, not T1"),
        (2, "AX T2 TSE", "it is T2w, not T1"),
        (5, "research", "neither its description nor its times say its contrast, not T1"),
    ):
        assert f"left out, because {reason}: p1: series {number} ({words}) of 10 file(s)" in caplog.text
    assert len(items(tmp_path, contrast=None)) == 6


def test_a_single_series_of_unknown_contrast_is_taken_and_one_of_another_is_not(tmp_path):
    write_series(tmp_path / "a", VOXELS, np.eye(4), SeriesDescription=None, SeriesNumber=None)
    assert [case for case, _ in items(tmp_path / "a")] == ["a"]
    write_series(tmp_path / "b", VOXELS, np.eye(4), SeriesDescription="AX FLAIR")
    with pytest.raises(ValueError, match=r"b has none that can be used, but .: series 3 \(AX FLAIR\) of 10 file\(s\)"):
        input_datalist(tmp_path / "b")


def test_two_series_of_one_number_are_told_apart(tmp_path):
    for _ in range(2):
        folder = write_series(tmp_path / "new", VOXELS, np.eye(4))
        for path in folder.iterdir():
            path.rename(tmp_path / f"{len(list(tmp_path.glob('*.dcm')))}.dcm")
        folder.rmdir()
    assert [case for case, _ in items(tmp_path)] == [f"{tmp_path.name}/series3", f"{tmp_path.name}/series3-2"]


def change(folder, number, **tags):
    path = folder / f"IM{number:04d}.dcm"
    header = pydicom.dcmread(path)
    for name, value in tags.items():
        setattr(header, name, value)
    header.save_as(path)


FAULTS = [
    (dict(Modality="CT"), {}, "its modality is CT, not MR"),
    (dict(Modality=None), {}, "its modality is not given, not MR"),
    (dict(ImageType=["DERIVED", "PRIMARY", "MPR"]), {}, "it is a reformat"),
    (dict(NumberOfFrames=10), {}, "a file holds several slices"),
    (dict(ImageOrientationPatient=None), {}, "a slice does not say where it lies"),
    (dict(order=[0, 1, 2, 3, 4, 6, 7, 8, 9]), {}, "slices are missing: their distances are 1 to 2 mm"),
    (dict(order=[0, 1, 2]), {}, r"it has 3 slice\(s\) only"),
    (dict(order=[i // 2 for i in range(20)]), {}, r"several of its slices lie at one place"),
    ({}, dict(PixelSpacing=[1, 2]), "its slices differ in PixelSpacing"),
    ({}, dict(Rows=5), "its slices differ in Rows"),
    ({}, dict(ImageOrientationPatient=[0, 1, 0, 0, 0, 1]), "its slices differ in ImageOrientationPatient"),
]


@pytest.mark.parametrize("tags, changes, reason", FAULTS, ids=[reason for *_, reason in FAULTS])
def test_a_series_that_is_no_volume_is_left_out_and_refused_by_the_reader(tmp_path, caplog, tags, changes, reason):
    folder = write_series(tmp_path / "a", VOXELS, np.eye(4), **tags)
    change(folder, 3, **changes)
    write_series(tmp_path / "b", VOXELS, np.eye(4))
    assert [case for case, _ in items(tmp_path)] == ["b"]
    with caplog.at_level("WARNING"):
        input_datalist(tmp_path)
    assert "left out, because " in caplog.text
    with pytest.raises(ValueError, match=rf"{folder}: the series cannot be read: {reason}"):
        LOAD(sorted(map(str, folder.iterdir())))


def test_a_cut_or_damaged_file_is_named(tmp_path, caplog):
    folder = write_series(tmp_path / "a", VOXELS, np.eye(4))
    files = sorted(map(str, folder.iterdir()))
    path = folder / "IM0004.dcm"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"IM0004\.dcm: .*(pixels cannot be read|damaged or cut)"):
        LOAD(files)
    path.write_bytes(path.read_bytes()[:132] + b"\xff" * 40)
    with pytest.raises(ValueError, match=r"IM0004\.dcm|the series cannot be read"):
        LOAD(files)
    with pytest.raises(ValueError, match="has none that can be used"):
        input_datalist(tmp_path)  # a slice is missing now


def test_without_pydicom_one_line_says_how_to_read_dicom(tmp_path, caplog, monkeypatch):
    files = sorted(map(str, write_series(tmp_path / "a", VOXELS, np.eye(4)).iterdir()))
    monkeypatch.setattr(dicom, "find_spec", lambda name: None)
    reason = r"IM0001\.dcm: reading DICOM needs pydicom: pip install 'rare-unet-networks\[dicom\]'$"
    with pytest.raises(ImportError, match=reason):
        input_datalist(tmp_path)
    with pytest.raises(ImportError, match=reason):
        LOAD(files)
    (tmp_path / "b.nrrd").write_bytes(nrrd())
    assert [case for case, _ in items(tmp_path)] == ["b"]
    assert "DICOM files are left out (" in caplog.text and "10 file(s)" in caplog.text


def test_two_folders_of_one_name_do_not_share_a_prediction(tmp_path):
    for folder in ("p1/T1", "p2/T1"):
        write_series(tmp_path / folder, VOXELS, np.eye(4))
    assert [(item["case"], FAILURE in item) for item in input_datalist(tmp_path)] == [
        ("p1/T1", False),
        ("p2/T1", False),
    ]
