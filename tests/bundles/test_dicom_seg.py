"""--dicom_seg true through the bundle's inference, and read back."""

import nibabel as nib
import numpy as np
import pytest

from ..data.scans import write_series
from .conftest import SAMPLE, run

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
