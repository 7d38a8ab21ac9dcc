"""When a DICOM segmentation is written, asked for without reason, or removed; its content: tests/data."""

import json

import pytest
from ignite.engine import Engine
from monai.engines import IterationEvents

from rare_unet_networks.data import CaseRecords, scan_datalist
from rare_unet_networks.data.datalists import FAILURE
from rare_unet_networks.handlers import DicomSegSaver, dicom_seg

WITH = {"options": {"dicom_seg": True}, "config": "1"}
VOLUMES = {"a": {"voxels": 1, "mm3": 1.0, "mm3_fine": None}}


def records(folder, grid="scan", options=None):
    (folder / "model.pt").touch()
    return CaseRecords(str(folder), grid, str(folder / "model.pt"), options)


def test_scans_that_are_no_dicom_series_are_failures_with_one_reason(tmp_path):
    (tmp_path / "head.nii.gz").touch()
    (tmp_path / "slice.dcm").write_bytes(bytes(128) + b"DICM")
    for name, reason in (
        ("head.nii.gz", "dicom_seg needs a DICOM series as input, got head.nii.gz"),
        ("slice.dcm", None),
    ):
        (item,) = scan_datalist(str(tmp_path / name), dicom_seg="true")
        assert item.get(FAILURE) == reason
        assert FAILURE not in scan_datalist(str(tmp_path / name))[0]


def test_without_highdicom_or_on_the_fine_grid_the_run_does_not_start(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom_seg, "require_highdicom", lambda: None)
    with pytest.raises(ValueError, match=r"dicom_seg must have label maps on the grid of the scan, got --grid fine"):
        DicomSegSaver(records(tmp_path, "fine"), ["a"], "codes.json", True)
    monkeypatch.undo()
    monkeypatch.setattr("rare_unet_networks.data.dicom_seg.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"needs highdicom: pip install 'rare-unet-networks\[dicom\]'"):
        DicomSegSaver(records(tmp_path), ["a"], "codes.json", "true")
    DicomSegSaver(records(tmp_path), ["a"], "codes.json", "false")


@pytest.mark.parametrize("earlier", [WITH, {"options": {"dicom_seg": False}, "config": "1"}, None])
def test_an_earlier_segmentation_is_removed_but_no_file_of_others(tmp_path, earlier):
    written = records(tmp_path, options=earlier)
    if earlier:
        written.write("x", volumes=VOLUMES, spacing=[1, 1, 1], level=0, seconds=0.0, review=[])
    (tmp_path / "x_seg.dcm").touch()
    engine = Engine(lambda engine, batch: [])
    engine.register_events(*IterationEvents)
    DicomSegSaver(written, ["a"], "codes.json", False).attach(engine)
    engine.run([{"case": ["x"]}])
    assert (tmp_path / "x_seg.dcm").exists() == (earlier is not WITH)


def test_a_case_without_its_dicom_segmentation_is_not_done(tmp_path):
    scan = tmp_path / "x.nii.gz"
    scan.write_bytes(b"1")
    item = {"image": str(scan), "case": "x"}
    written = records(tmp_path, options=WITH)
    assert written.acquire(item)
    (tmp_path / "x_seg.nii.gz").touch()
    written.write("x", volumes=VOLUMES, spacing=[1, 1, 1], level=0, seconds=0.0, review=[])
    assert json.loads((tmp_path / "x_seg.json").read_text())["options"] == {"dicom_seg": True}
    assert not written.is_done(item)
    (tmp_path / "x_seg.dcm").touch()
    assert written.is_done(item)
