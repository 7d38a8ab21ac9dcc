import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.data.utils import decollate_batch, list_data_collate
from monai.engines import IterationEvents

from rare_unet_networks.data import CaseRecords
from rare_unet_networks.handlers import CaseRecordSaver
from rare_unet_networks.levels import ResolutionLevels

LEVELS = ResolutionLevels(num_levels=2, spacing=(1.0, 1.0, 1.0))


def image(name):
    return MetaTensor(torch.ones(1, 4, 4, 4), meta={"filename_or_obj": f"/scans/{name}.nii.gz"})


BATCHES = {
    "case": lambda: list_data_collate([{"image": image("x"), "case": "a"}, {"image": image("y"), "case": "b"}]),
    "file": lambda: list_data_collate([{"image": image("a")}, {"image": image("b")}]),
}


def run(folder, batch, step):
    """Runs one iteration with the handler; ``step`` returns the output."""
    (folder / "model.pt").touch()
    engine = Engine(step)
    engine.register_events(*IterationEvents)
    CaseRecordSaver(CaseRecords(str(folder), "scan", str(folder / "model.pt")), ["x"]).attach(engine)
    engine.run([batch])


def segment(engine, batch):
    prediction = MetaTensor(batch["image"].as_tensor().clone(), meta=dict(batch["image"].meta))
    route = LEVELS.route(batch["image"])
    engine.state.batch = decollate_batch(batch)
    outputs = [{"pred": member} for member in decollate_batch(prediction)]
    for output in outputs:
        output["pred"].meta["route"] = route
    return outputs


@pytest.mark.parametrize("key", BATCHES)
def test_each_case_of_a_batch_gets_a_record_under_its_name(tmp_path, key):
    run(tmp_path, BATCHES[key](), segment)
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["a_seg.json", "b_seg.json"]


FAILED = {"file": {"image": ["/scans/a.nii.gz"]}, "modalities": {"image": {"t1": ["/scans/a.nii.gz"]}}}


@pytest.mark.parametrize("batch", [*(make() for make in BATCHES.values()), *FAILED.values()], ids=[*BATCHES, *FAILED])
def test_old_records_are_removed_before_their_cases_are_segmented(tmp_path, batch):
    (tmp_path / "a_seg.json").write_text("{}")
    at_start = []

    def fail(engine, batch):
        at_start.append((tmp_path / "a_seg.json").exists())
        return []

    run(tmp_path, batch, fail)
    assert at_start == [False]
