import logging

import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.data.utils import decollate_batch, list_data_collate
from monai.engines import IterationEvents

from rare_unet_networks.data import CaseRecords
from rare_unet_networks.handlers import CaseRecordSaver
from rare_unet_networks.handlers.case_entries import without_intervals_of_empty
from rare_unet_networks.inferers.whole_head import HeadNotes
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


OPTIONS = {"options": {}, "config": "same"}


def items(folder, cases):
    """Scans of these cases, as a list of input has them; their files hold their names."""
    listed = []
    for case in cases:
        (folder / f"{case}.nii.gz").write_text(case)
        listed.append({"image": str(folder / f"{case}.nii.gz"), "case": case})
    return listed


def run_all(folder, cases, review=(), grid="scan", others=()):
    """Segments the cases that are not done, one by one, each in a second; returns the records."""
    (folder / "model.pt").touch()
    records = CaseRecords(str(folder), grid, str(folder / "model.pt"), OPTIONS)
    pending = records.pending(items(folder, cases))
    engine = Engine(lambda engine, batch: segment_one(engine, batch, review))
    engine.register_events(*IterationEvents)
    CaseRecordSaver(records, ["x", "y"]).attach(engine)
    batches = []
    for item in pending:
        if item["case"] in others:
            records.left_to_others.add(item["case"])
        else:
            batches.append(list_data_collate([{"image": image(item["case"]), "case": item["case"]}]))
    for item in pending:
        (folder / f"{item['case']}_{'seg' if grid == 'scan' else 'fine_seg'}.nii.gz").touch()
        if item["case"] not in others:
            records.acquire(item)
    engine.run(batches)
    return records


def segment_one(engine, batch, review):
    outputs = segment(engine, batch)
    for output in outputs:
        output["pred_fine"] = output["pred"].clone()
        output["pred_fine"].affine = torch.diag(torch.tensor([0.5, 0.5, 0.5, 1.0]))
        output["pred"].meta |= {"side": "left", "doubt": 0.254, "review": list(review)}
    return outputs


@pytest.fixture
def seconds(monkeypatch):
    """A clock that goes on by a second whenever it is read."""
    clock = iter(range(1000))
    monkeypatch.setattr("rare_unet_networks.handlers.case_records.time.perf_counter", lambda: float(next(clock)))


def lines(caplog, position):
    return [record for record in caplog.records if record.getMessage().startswith(position)]


def test_a_case_is_one_line_with_its_position_and_the_time_left(tmp_path, caplog, seconds):
    with caplog.at_level(logging.INFO):
        run_all(tmp_path, "abc")
    # Read when the run starts (0 s), at the start of an iteration, and at its end for the time left: 2 s, then 4 s.
    (first,), (second,), (third,) = (lines(caplog, f"{i} of 3: ") for i in (1, 2, 3))
    said = "1×1×1 mm -> level 0, left side, x 64 mm3, y 0 mm3, doubt 0.25, 0.00 s"
    assert first.getMessage() == f"1 of 3: a: {said}; about 4 s left"
    assert second.getMessage() == f"2 of 3: b: {said}; about 2 s left"
    assert third.getMessage() == f"3 of 3: c: {said}"
    assert {record.levelname for record in (first, second, third)} == {"INFO"}


def test_a_case_to_review_is_a_warning_with_its_reasons(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        run_all(tmp_path, "a", review=["it is cut", "it is dark"])
    (line,) = lines(caplog, "1 of 1: a: ")
    assert line.levelname == "WARNING" and line.getMessage().endswith("; to be reviewed: it is cut; it is dark")


def test_on_the_fine_grid_the_line_has_the_volumes_there(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        run_all(tmp_path, "a", grid="fine")
    assert "x 8 mm3, y 0 mm3" in lines(caplog, "1 of 1: a: ")[0].getMessage()  # 64 voxels of 1/8 mm3


def test_cases_of_earlier_runs_and_of_other_processes_count_and_the_table_has_the_former(tmp_path, caplog):
    run_all(tmp_path, "ab")
    with caplog.at_level(logging.INFO):
        records = run_all(tmp_path, "abcd", others="c")
    assert (records.total, records.done, records.left_to_others) == (4, ["a", "b"], {"c"})
    (line,) = lines(caplog, "4 of 4: d: ")  # of four, two are done and another process does c
    assert "left" not in line.getMessage().removeprefix("4 of 4: d: 1×1×1 mm -> level 0, left side")
    *_, table = [m for m in caplog.messages if m.startswith("predictions and volumes.csv are in")]
    assert [row.split()[0] for row in table.splitlines()[1:]] == ["case", "a", "b", "d"]


def test_without_a_list_of_scans_a_line_has_no_position(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        run(tmp_path, BATCHES["case"](), lambda engine, batch: segment_one(engine, batch, ()))
    assert lines(caplog, "a: 1×1×1 mm -> level 0")


def segment_head(engine, batch):
    """Three voxels of the left side and one of the right one: 2 more, of a mean of 2."""
    (output,) = segment(engine, batch)
    output["pred"][:] = 0
    output["pred"][0, 0, 0, :3], output["pred"][0, 3, 3, 3] = 1, 2
    names = ["left x", "right x"]
    output["pred"].meta |= {"head": HeadNotes(names, (0, 0, 0), (4, 4, 4), ["left", "right"], 0.0, {}, {})}
    output["pred"].meta["review"] = ["it is dark"]
    return [output]


@pytest.mark.parametrize("limit, is_reason", [(99.0, True), (100.0, False), (None, False)])
def test_a_head_whose_sides_differ_too_much_is_to_be_reviewed(tmp_path, caplog, limit, is_reason):
    (tmp_path / "model.pt").touch()
    records = CaseRecords(str(tmp_path), "scan", str(tmp_path / "model.pt"))
    engine = Engine(segment_head)
    engine.register_events(*IterationEvents)
    CaseRecordSaver(records, ["x"], limit).attach(engine)
    engine.run([list_data_collate([{"image": image("a"), "case": "a"}])])
    record, reason = records.read("a"), "left and right differ by 100 % of their mean volume (the limit is 99 %)"
    assert record["asymmetry"] == 100.0
    assert record["review"] == ["it is dark", *[reason] * is_reason]
    assert (reason in caplog.text) == is_reason
    assert (reason in (tmp_path / "volumes.csv").read_text()) == is_reason


@pytest.mark.parametrize("limit", [0, -3.0, "much"])
def test_a_limit_of_asymmetry_that_is_none_is_refused(tmp_path, limit):
    with pytest.raises(ValueError, match=r"asymmetry_limit must be a positive number or null, got"):
        CaseRecordSaver(CaseRecords(str(tmp_path), "scan", "model.pt"), ["x"], limit)


def test_a_class_of_which_no_voxel_is_left_has_no_interval():
    entries = {"agreement": 1, "volume_interval": {"a": [1.0, 2.0], "b": [3.0, 4.0], "total": [4.0, 6.0]}}
    volumes = {"a": {"voxels": 0}, "b": {"voxels": 5}}
    found = without_intervals_of_empty(entries, volumes)
    assert found == {"agreement": 1, "volume_interval": {"a": None, "b": [3.0, 4.0], "total": [4.0, 6.0]}}
    assert without_intervals_of_empty({}, volumes) == {}
