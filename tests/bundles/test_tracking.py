"""A Dice per scale in every tracker (docs/many_machines.md)."""

import json
import sqlite3
import struct
from pathlib import Path

import pytest

from .conftest import CONFIGS, EVALUATING, SAMPLE, SMALL, command

SCALES = ("1", "0.5", "0.25", "0.125")
EXPECTED = {
    "val_mean_dice",
    *(f"val_mean_dice_scale_{s}_{c}" for s in SCALES for c in ("anterior", "posterior", "mean")),
}


def train(tiny, output, *options, **overrides):
    paths = dict(dataset_dir=tiny, splits_file=tiny / "splits.json", output_dir=output, max_epochs=2, **SMALL)
    result = command("training", CONFIGS / "train.json", *options, **paths, **overrides)
    assert result.returncode == 0, result.stdout


def test_tensorboard_is_built_in(trained):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    steps = {}
    for path in (trained[1] / "tensorboard").iterdir():
        events = accumulator.EventAccumulator(str(path))
        events.Reload()
        for tag in events.Tags()["scalars"]:
            steps[tag] = [event.step for event in events.Scalars(tag)]
            assert all(0 <= event.value <= 1 for event in events.Scalars(tag) if tag in EXPECTED)
    assert EXPECTED | {"train_loss"} <= steps.keys()
    assert {tuple(steps[tag]) for tag in (*EXPECTED, "train_loss")} == {(1, 2)}


def test_mlflow_by_one_override(tiny, tmp_path):
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    train(tiny, tmp_path, "--tracking", "mlflow", "--experiment_name", "tiny")
    with sqlite3.connect(tmp_path / "mlruns.db") as store:
        rows = store.execute("select key, step, value from metrics").fetchall()
        names = store.execute("select name from experiments").fetchall()
    assert ("tiny",) in names
    assert EXPECTED | {"train_loss"} <= {key for key, _, _ in rows}
    for key in EXPECTED:
        assert [(step, 0 <= value <= 1) for name, step, value in rows if name == key] == [(1, True), (2, True)]


def wandb_records(data):
    """Records of a .wandb file: after 7 bytes LevelDB's log format, pieces in blocks of 32 KiB."""
    position, record = 7, b""
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, kind = struct.unpack("<HB", data[position + 4 : position + 7])  # behind a checksum
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


def wandb_history(folder):
    """What an offline run has written down, a dictionary for each call of ``log``."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = Path(folder).glob("wandb/offline-run-*/run-*.wandb")
    records = map(Record.FromString, wandb_records(path.read_bytes()))
    items = [record.history.item for record in records if record.WhichOneof("record_type") == "history"]
    return [{i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in of_call} for of_call in items]


def test_weights_and_biases_by_one_override(tiny, tmp_path):
    pytest.importorskip("wandb", reason="wandb is not installed")
    offline = {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    options = ("--tracking", str(CONFIGS / "tracking_wandb.json"), "--wandb_project", "tiny")
    train(tiny, tmp_path, *options, variables=offline)
    history = wandb_history(tmp_path)
    assert [entry["epoch"] for entry in history if "val_mean_dice" in entry] == [1, 2]
    assert [entry["iteration"] for entry in history if "train_loss" in entry] == [1, 2]
    for entry in (entry for entry in history if "epoch" in entry):
        assert entry.keys() >= EXPECTED and all(0 <= entry[key] <= 1 for key in EXPECTED)


def test_an_evaluation_is_tracked_as_well(tmp_path):
    pytest.importorskip("wandb", reason="wandb is not installed")
    options = ("--tracking", str(CONFIGS / "tracking_wandb.json"))
    paths = dict(dataset_dir=SAMPLE / "Task04_Hippocampus", output_dir=tmp_path)
    result = command("evaluating", EVALUATING, *options, variables={"WANDB_MODE": "offline"}, **paths)
    assert result.returncode == 0, result.stdout
    (entry,) = wandb_history(tmp_path)
    assert {f"mean_dice_scale_{scale}_mean" for scale in SCALES} <= entry.keys()
