"""A scan that is refused: the others go on, and its record, the table, the report and the log say so."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor
from monai.transforms import Compose, LoadImaged

from rare_unet_networks.data import CaseRecords, FaultTolerantDataset
from rare_unet_networks.engines import FaultTolerantEvaluator, exit_status
from rare_unet_networks.handlers import CaseRecordSaver, ReportSaver
from rare_unet_networks.levels import ResolutionLevels
from rare_unet_networks.transforms import CheckScand

LEVELS = ResolutionLevels(num_levels=1, spacing=(10.0, 10.0, 10.0))
VOXEL = np.diag([10.0, 10.0, 10.0, 1.0])  # a millilitre
REASON = "0.9 l of the scan are not background, a brain has at most 0.5: remove the skull first, or with --skull_strip"


def predict(image, network):
    prediction = MetaTensor((image > 0).float().as_tensor(), meta=dict(image.meta), affine=image.affine)
    prediction.meta["route"] = LEVELS.route(image)
    return prediction


def evaluate(folder, refuse=True, workers=0):
    """Runs over a brain of 0.3 l and a head of 0.9 l; returns the evaluator and the records."""
    (folder / "model.pt").touch()
    items = []
    for case, litres in (("brain", 300), ("head", 900)):
        voxels = np.zeros((10, 10, 10), np.float32)
        voxels.reshape(-1)[:litres] = np.linspace(50, 100, litres)
        nib.save(nib.Nifti1Image(voxels, VOXEL), folder / f"{case}.nii.gz")
        items.append({"image": str(folder / f"{case}.nii.gz"), "case": case})
    options = {"options": {}, "config": "same"}
    records = CaseRecords(str(folder / "out"), "scan", str(folder / "model.pt"), options)
    check = CheckScand("image", max_foreground=0.5, refuse=refuse)
    dataset = FaultTolerantDataset(
        records.pending(items), Compose([LoadImaged("image", ensure_channel_first=True), check])
    )

    def save(data):
        path = records.prediction(data["image"].meta["case"])
        path.parent.mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(data["pred"][0].numpy().astype(np.uint8), VOXEL), path)
        return data

    evaluator = FaultTolerantEvaluator(
        device="cpu",
        val_data_loader=DataLoader(dataset, batch_size=1, num_workers=workers),
        network=torch.nn.Identity(),
        inferer=predict,
        postprocessing=save,
        val_handlers=[CaseRecordSaver(records, ["x"]), ReportSaver(records, True)],
    )
    for item in items:
        records.acquire(item)
    evaluator.run()
    return evaluator, records


def test_a_refused_scan_gets_a_record_without_label_map_and_the_others_go_on(tmp_path, caplog):
    evaluator, records = evaluate(tmp_path)
    record = records.read("head")
    assert record["status"] == "not segmented" and record["spacing"] == [10, 10, 10] and record["volumes"] == {}
    assert len(record["review"]) == 1 and record["review"][0].startswith(REASON)
    assert record["scans"]["image"]["file"].endswith("head.nii.gz")
    assert "status" not in records.read("brain") and records.read("brain")["volumes"]["x"]["voxels"] == 300
    assert records.prediction("brain").exists() and not records.prediction("head").exists()
    _, brain, head = (tmp_path / "out" / "volumes.csv").read_text().splitlines()
    assert brain.startswith("brain,x,300,300000.0000,") and brain.endswith(",")
    assert head.startswith(f'head,,,,,10x10x10,,,scan,,,"{REASON}')
    assert any(m.startswith(f"{tmp_path / 'head.nii.gz'}: not segmented: {REASON}") for m in caplog.messages)
    with pytest.raises(SystemExit, match="1"):
        exit_status(evaluator, records)
    assert caplog.messages[-1] == f"1 of 2 not segmented, for the reasons above: {tmp_path / 'head.nii.gz'}"
    pytest.importorskip("matplotlib", reason="the report needs matplotlib (extra report)")
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count('<span class="badge">not segmented</span>') == 2 and "no label map was written" in page


def test_a_refused_case_is_not_done_and_an_older_label_map_does_not_stay(tmp_path):
    _, records = evaluate(tmp_path, refuse=False)
    assert records.prediction("head").exists() and "status" not in records.read("head")
    records.begin("head")  # as if another head had taken its place
    _, records = evaluate(tmp_path)
    assert records.done == ["brain"] and not records.prediction("head").exists()
    record = json.loads((tmp_path / "out" / "head_seg.json").read_text())
    assert record["status"] == "not segmented"
    _, records = evaluate(tmp_path, refuse=False)
    assert records.done == ["brain"] and records.prediction("head").exists()
    assert "status" not in records.read("head")


def test_a_refusal_comes_through_the_processes_that_load_scans(tmp_path):
    evaluator, records = evaluate(tmp_path, workers=1)
    assert [name for name, _ in evaluator.refused] == [str(tmp_path / "head.nii.gz")] and not evaluator.failures
    assert records.read("head")["review"][0].startswith(REASON)
