"""One scan in every format gives one segmentation, and a BIDS data set gives derivatives."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import LoadImage, Orientation

from rare_unet_networks.data import ScanReader, input_datalist

from ..data.scans import mgz, mha, nrrd, write_series
from .conftest import SAMPLE, SHARED, needs, run

SCAN = SAMPLE / "images" / "icbm152_left_2mm.nii.gz"
HEADS = SHARED / "WholeHead" / "images"
needs_heads = needs(HEADS)


def in_ras(path):
    image = LoadImage(ScanReader, ensure_channel_first=True)(path)
    return Orientation("RAS", labels=None)(image)


def volume(path):
    image = nib.load(path)
    return np.asarray(image.dataobj).round().astype(np.int16), image.affine


def test_a_scan_gives_the_same_segmentation_from_every_format(tmp_path):
    for package in ("pydicom", "nrrd", "itk"):
        pytest.importorskip(package)
    voxels, affine = volume(SCAN)
    scans, output = tmp_path / "in", tmp_path / "out"
    write_series(scans / "dicom", voxels, affine)
    nib.save(nib.Nifti1Image(voxels, affine), scans / "nifti.nii.gz")
    for name, form in (("mgz.mgz", mgz), ("nrrd.nrrd", nrrd), ("mha.mha", mha)):
        (scans / name).write_bytes(form(voxels, affine))
    run("inference.json", input=str(scans), output_dir=str(output))
    expected = in_ras(output / "nifti_seg.nii.gz")
    assert int(expected.max()) == 2
    for case in ("dicom", "mgz", "nrrd", "mha"):
        labels = in_ras(output / f"{case}_seg.nii.gz")
        np.testing.assert_array_equal(labels.numpy(), expected.numpy(), err_msg=case)
        np.testing.assert_allclose(labels.affine, expected.affine, atol=1e-4, err_msg=case)
    record = json.loads((output / "dicom_seg.json").read_text())["scans"]["image"]
    assert record["file"] == str(scans / "dicom") and len(record["files"]) == voxels.shape[2]
    assert (output / "figures" / "dicom_seg.svg").is_file()


@pytest.fixture(scope="module")
def derivatives(tmp_path_factory):
    """Derivatives of a BIDS data set of two scans."""
    root = tmp_path_factory.mktemp("bids")
    for name in ("sub-01/anat/sub-01_T1w", "sub-02/ses-1/anat/sub-02_ses-1_acq-thick_T1w"):
        (root / "raw" / name).parent.mkdir(parents=True)
        shutil.copy(SAMPLE / "images" / "icbm152_left_4mm.nii.gz", root / "raw" / f"{name}.nii.gz")
    run("inference.json", input=str(root / "raw"), output_dir=str(root / "out"))
    return root / "out"


def test_a_bids_data_set_gives_derivatives_beside_one_table_and_report(derivatives):
    files = {p.relative_to(derivatives).as_posix() for p in derivatives.rglob("*") if p.is_file()}
    assert {name for name in files if not name.startswith("figures/")} - {"report.html"} == {
        "sub-01/anat/sub-01_dseg.nii.gz", "sub-01/anat/sub-01_dseg.json",
        "sub-02/ses-1/anat/sub-02_ses-1_acq-thick_dseg.nii.gz", "sub-02/ses-1/anat/sub-02_ses-1_acq-thick_dseg.json",
        "dseg.tsv", "dataset_description.json", ".bidsignore", "volumes.csv",
        "labels_itksnap.txt", "labels_slicer.ctbl",
    }  # fmt: skip


def test_the_bids_validator_accepts_the_derivatives(derivatives):
    validator = shutil.which("bids-validator-deno", path=Path(sys.executable).parent) or shutil.which("bids-validator")
    if validator is None:
        pytest.skip("no BIDS validator is installed (pip install bids-validator-deno)")
    done = subprocess.run([validator, "--json", str(derivatives)], capture_output=True, text=True)
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []


@needs_heads
def test_a_whole_head_as_dicom_has_the_voxels_and_affine_of_its_nifti(tmp_path):
    pytest.importorskip("pydicom")
    for case in ("ds000011_sub-01", "ds002748_sub-01"):
        voxels, affine = volume(HEADS / f"{case}.nii.gz")
        voxels = np.clip(voxels, 0, None)
        nib.save(nib.Nifti1Image(voxels, affine), tmp_path / f"{case}.nii.gz")
        (item,) = input_datalist(write_series(tmp_path / case, voxels, affine))
        scan, nifti = in_ras(item["image"]), in_ras(tmp_path / f"{case}.nii.gz")
        np.testing.assert_array_equal(scan.numpy(), nifti.numpy())
        np.testing.assert_allclose(scan.affine, nifti.affine, atol=1e-3)
