"""--dicom_seg true through the bundle's inference, and read back."""

import nibabel as nib
import numpy as np
import pytest

from ..data.scans import write_series
from .conftest import BUNDLES, SAMPLE, run, untrained

BRAIN = BUNDLES["brain_tumor_mri_segmentation"]
SCAN = SAMPLE / "images" / "icbm152_left_4mm.nii.gz"


@pytest.fixture(scope="module")
def packages():
    pytest.importorskip("pydicom", reason="DICOM needs pydicom (extra dicom)")
    return pytest.importorskip("highdicom", reason="DICOM-SEG needs highdicom (extra dicom)")


def test_a_series_gets_a_dicom_segmentation_with_the_volumes_of_its_label_map(packages, tmp_path):
    image = nib.load(SCAN)
    voxels = np.asarray(image.dataobj).round().astype(np.int16)
    write_series(tmp_path / "in/scan", voxels, image.affine)
    nib.save(nib.Nifti1Image(voxels, image.affine), tmp_path / "in/other.nii.gz")
    workflow = run("inference.json", input=str(tmp_path / "in"), output_dir=str(tmp_path / "out"), dicom_seg=True)
    failures = workflow.parser.get_parsed_content("evaluator").failures
    reason = "dicom_seg needs a DICOM series as input, got other.nii.gz"
    assert failures == [(str(tmp_path / "in/other.nii.gz"), reason)]
    segmentation = packages.seg.segread(tmp_path / "out/scan_seg.dcm")
    labels = [segmentation.get_segment_description(n).segment_label for n in segmentation.segment_numbers]
    assert labels == ["left anterior", "left posterior"]
    volume = segmentation.get_volume(combine_segments=True)
    label_map = nib.load(tmp_path / "out/scan_seg.nii.gz")
    for index in (1, 2):
        expected = (np.asarray(label_map.dataobj) == index).sum()
        assert (volume.array == index).sum() == expected > 0
    assert np.prod(volume.spacing) == pytest.approx(abs(np.linalg.det(label_map.affine[:3, :3])), rel=1e-3)
    assert not (tmp_path / "out/other_seg.nii.gz").exists()


def test_a_study_of_four_series_gets_one_on_the_series_with_the_finest_voxels(packages, tmp_path):
    random, study = np.random.default_rng(0), tmp_path / "in/p1"
    for number, (name, thickness) in enumerate({"flair": 2.0, "t1": 1.0, "t1ce": 2.0, "t2": 2.0}.items(), start=1):
        voxels = random.integers(1, 900, (30, 28, int(32 / thickness))).astype(np.int16)
        affine = np.diag([1.0, 1.0, thickness, 1.0])
        write_series(study / name, voxels, affine, SeriesNumber=number, SeriesDescription=name)
    small = {"network_def#channels": [2, 4, 4, 4, 4, 4], "network_def#fine_channels": [4, 4, 4]}
    weights = untrained(tmp_path / "model.pt", BRAIN, small)
    where = dict(input=str(tmp_path / "in"), output_dir=str(tmp_path / "out"), checkpoint=weights)
    workflow = run("inference.json", bundle=BRAIN, dicom_seg="true", **where, **small)
    assert workflow.parser.get_parsed_content("evaluator").failures == []
    segmentation = packages.seg.segread(tmp_path / "out/p1_seg.dcm")
    label_map = np.asarray(nib.load(tmp_path / "out/p1_seg.nii.gz").dataobj)
    assert label_map.shape == (30, 28, 32) and segmentation.SeriesNumber == 900 + 2 * 100  # of T1w
    descriptions = [segmentation.get_segment_description(n) for n in segmentation.segment_numbers]
    kinds = [(d.segment_label, d.segmented_property_type.value) for d in descriptions]
    assert kinds == [("edema", "79654002"), ("non_enhancing", "C81175"), ("enhancing", "C113842")]
    for index in np.unique(label_map[label_map > 0]):
        frames = segmentation.get_volume(combine_segments=False, segment_numbers=[int(index)]).array
        assert frames.sum() == (label_map == index).sum()
