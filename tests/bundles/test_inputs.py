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

from rare_unet_networks.data import ScanReader, collect_volumes, input_datalist

from ..data.scans import mgz, mha, nrrd, write_series
from .conftest import SAMPLE, SHARED, needs, run

SCAN = SAMPLE / "images" / "icbm152_left_2mm.nii.gz"
HEAD = SAMPLE / "heads" / "icbm152_head_1x1x5mm.nii.gz"
HEADS = SHARED / "WholeHead" / "images"
needs_heads = needs(HEADS)


def in_ras(path):
    image = LoadImage(ScanReader, ensure_channel_first=True)(path)
    return Orientation("RAS", labels=None)(image)


def volume(path):
    image = nib.load(path)
    return np.asarray(image.dataobj).round().astype(np.int16), image.affine


@pytest.mark.parametrize("source", [SCAN, pytest.param(HEAD, marks=pytest.mark.slow)], ids=["crop", "head"])
def test_a_scan_gives_the_same_segmentation_from_every_format(tmp_path, source):
    for package in ("pydicom", "nrrd", "itk"):
        pytest.importorskip(package)
    voxels, affine = volume(source)
    scans, output = tmp_path / "in", tmp_path / "out"
    write_series(scans / "dicom", voxels, affine)
    nib.save(nib.Nifti1Image(voxels, affine), scans / "nifti.nii.gz")
    for name, form in (("mgz.mgz", mgz), ("nrrd.nrrd", nrrd), ("mha.mha", mha)):
        (scans / name).write_bytes(form(voxels, affine))
    run("inference.json", input=str(scans), output_dir=str(output))
    expected = in_ras(output / "nifti_seg.nii.gz")
    assert int(expected.max()) == (2 if source == SCAN else 4)
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
    description = {"Name": "test", "BIDSVersion": "1.10.0", "DatasetType": "raw", "License": "CC0"}
    (root / "raw" / "dataset_description.json").write_text(json.dumps(description))
    (root / "raw" / "README").write_text("Two scans of a template, for a test of the command.")
    run("inference.json", input=str(root / "raw"), output_dir=str(root / "out"))
    return root / "out"


def test_a_bids_data_set_gives_derivatives_beside_one_table_and_report(derivatives):
    files = {p.relative_to(derivatives).as_posix() for p in derivatives.rglob("*") if p.is_file()}
    assert {name for name in files if not name.startswith("figures/")} - {"report.html"} == {
        "sub-01/anat/sub-01_dseg.nii.gz", "sub-01/anat/sub-01_dseg.json",
        "sub-02/ses-1/anat/sub-02_ses-1_acq-thick_dseg.nii.gz", "sub-02/ses-1/anat/sub-02_ses-1_acq-thick_dseg.json",
        "dseg.tsv", "dataset_description.json", "README.md", ".bidsignore", "volumes.csv",
        "labels_itksnap.txt", "labels_slicer.ctbl",
    }  # fmt: skip


@pytest.fixture
def bids_issues():
    """The BIDS validator: codes and files of the errors and warnings of a data set."""
    validator = shutil.which("bids-validator-deno", path=Path(sys.executable).parent)
    if validator is None:
        pytest.skip("no BIDS validator is installed here (pip install bids-validator-deno)")

    def issues(folder):
        done = subprocess.run([validator, "--json", str(folder)], capture_output=True, text=True)
        found = json.loads(done.stdout)["issues"]["issues"]
        return {issue["code"]: issue["severity"] for issue in found if issue["severity"] in ("error", "warning")}

    return issues


# The scans' own units, and what only the owner of a data set knows.
LEFT_TO_USERS = {"NIFTI_UNIT", "TOO_FEW_AUTHORS", "SIDECAR_KEY_RECOMMENDED"}


def test_the_bids_validator_accepts_the_derivatives(bids_issues, derivatives, tmp_path):
    raw = derivatives.parent / "raw"
    assert "error" not in bids_issues(raw).values()
    assert set(bids_issues(derivatives)) <= LEFT_TO_USERS
    run("inference.json", input=str(raw), output_dir=str(tmp_path / "fine"), grid="fine")
    assert len(list((tmp_path / "fine").rglob("*_res-fine_dseg.nii.gz"))) == 2
    assert set(bids_issues(tmp_path / "fine")) <= LEFT_TO_USERS


def test_the_bids_validator_accepts_crops_and_heads_together_and_finds_faults(bids_issues, derivatives, tmp_path):
    shutil.copytree(derivatives, tmp_path / "out")
    path = tmp_path / "out/sub-01/anat/sub-01_dseg.json"
    names = ["left anterior", "left posterior", "right anterior", "right posterior"]
    path.write_text(json.dumps({**json.loads(path.read_text()), "labels": dict(enumerate(names, start=1))}))
    collect_volumes(tmp_path / "out")  # as if it was a head: each label map gets a table of its own
    assert len(list((tmp_path / "out").rglob("*_dseg.tsv"))) == 2 and not (tmp_path / "out/dseg.tsv").exists()
    assert set(bids_issues(tmp_path / "out")) <= LEFT_TO_USERS
    path.rename(path.with_name("sub-01_segmentation.json"))
    assert "error" in bids_issues(tmp_path / "out").values()


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
