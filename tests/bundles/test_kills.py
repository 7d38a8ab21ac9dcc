"""Runs that are killed at random moments: nothing written is lost or half, and the same command finishes the work."""

import json
import multiprocessing
import random
import shutil
import signal
import sys
import time

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events

from rare_unet_networks.handlers import BestCheckpointSaver

from .conftest import CONFIGS, EVALUATING, SMALL, command, read

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")
SCANS = 6
EPOCHS = 4
few_or_many = pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])


def visible(folder):
    """Names in a folder that are not hidden; a killed process leaves hidden temporary files and claims."""
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) if folder.is_dir() else []


def kill_at_random(start, progress, total, moments):
    """Starts a command and kills it after a random step of its progress; returns whether it still ran.

    Args:
        start: starts the command.
        progress: counts its steps so far.
        total: steps that it makes.
        moments: source of random numbers.
    """
    process, target = start(), moments.randrange(total)
    while process.poll() is None and progress() < target:
        time.sleep(0.002)
    time.sleep(moments.random() * 0.03)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    return process.returncode == -signal.SIGKILL


def finish(*words, **options):
    result = command(*words, **options)
    assert result.returncode == 0, result.stdout[-3000:]


def without_seconds(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    source = np.random.default_rng(0)
    for i in range(SCANS):
        noise = source.random(source.integers(10, 14, 3)).astype(np.float32)
        nib.save(nib.Nifti1Image(noise, np.diag([3, 3, 3, 1])), folder / f"s{i}.nii.gz")
    return folder


@few_or_many
def test_a_killed_inference_leaves_whole_predictions_and_is_finished_by_the_same_command(
    scans,
    small_weights,
    tmp_path,
    kills,
):
    options = dict(input=scans, checkpoint=small_weights, side="left", **SMALL)
    whole = tmp_path / "whole"
    finish("inferring", CONFIGS / "inference.json", output_dir=whole, **options)
    moments, killed, tries = random.Random(0), 0, 0
    while killed < kills:
        tries += 1
        assert tries < 10 * kills  # some commands end before they are killed
        output = tmp_path / f"out{tries}"
        start = lambda: command("inferring", CONFIGS / "inference.json", start=True, output_dir=output, **options)  # noqa: B023, E731
        if not kill_at_random(start, lambda: len(visible(output)), 2 * SCANS + 1, moments):  # noqa: B023
            continue
        killed += 1
        times = {}
        for name in visible(output):
            if name.endswith("_seg.nii.gz"):
                assert (output / name).read_bytes() == (whole / name).read_bytes()
            elif name.endswith("_seg.json"):
                assert json.loads((output / name).read_text())["case"] == name.removesuffix("_seg.json")
                prediction = name.replace(".json", ".nii.gz")
                times[prediction] = (output / prediction).stat().st_mtime_ns
        finish("inferring", CONFIGS / "inference.json", output_dir=output, **options)
        assert visible(output) == visible(whole)
        for name in visible(whole):
            if name.endswith("_seg.nii.gz"):
                assert (output / name).read_bytes() == (whole / name).read_bytes()
        assert {name: (output / name).stat().st_mtime_ns for name in times} == times  # what was done is not done again
        assert without_seconds(read(output / "volumes.csv")) == without_seconds(read(whole / "volumes.csv"))
        assert not list(output.glob(".*.claim"))


@few_or_many
def test_a_killed_evaluation_leaves_whole_rows_and_is_repeated_by_the_same_command(
    tiny,
    small_weights,
    tmp_path,
    kills,
):
    options = dict(dataset_dir=tiny, splits_file=tiny / "splits.json", checkpoint=small_weights, **SMALL)
    whole = tmp_path / "whole"
    finish("evaluating", EVALUATING, output_dir=whole, **options)
    rows = read(whole / "metrics" / "per_case.csv")
    moments, killed, tries = random.Random(1), 0, 0
    while killed < kills:
        tries += 1
        assert tries < 10 * kills  # some commands end before they are killed
        output = tmp_path / f"out{tries}"
        table = output / "metrics" / "per_case.csv"

        def progress(table=table):
            return len(table.read_bytes().splitlines()) if table.exists() else 0

        start = lambda: command("evaluating", EVALUATING, start=True, output_dir=output, **options)  # noqa: B023, E731
        if not kill_at_random(start, progress, len(rows) + 1, moments):
            continue
        killed += 1
        if table.exists():
            text = table.read_text()
            assert (whole / "metrics" / "per_case.csv").read_text().startswith(text[: text.rfind("\n") + 1])
        if (output / "summary.csv").exists():
            assert (output / "summary.csv").read_bytes() == (whole / "summary.csv").read_bytes()
        finish("evaluating", EVALUATING, output_dir=output, **options)
        for name in ("summary.csv", "metrics/per_case.csv"):
            assert (output / name).read_bytes() == (whole / name).read_bytes()


def load(path):
    return torch.load(path, map_location="cpu", weights_only=True)


def best_metric(folder):
    """Best validation Dice that the newest whole checkpoint knows; below all without one."""
    newest = max(
        folder.glob("checkpoints/checkpoint_epoch=*.pt"), key=lambda p: int(p.stem.split("=")[1]), default=None
    )
    return float("-inf") if newest is None else max(load(newest)["best"]["_saved"], default=(float("-inf"),))[0]


@few_or_many
def test_a_killed_training_keeps_whole_checkpoints_and_is_finished_by_the_same_command(tiny, tmp_path, kills):
    output = tmp_path / "out"
    options = dict(dataset_dir=tiny, splits_file=tiny / "splits.json", output_dir=output, **SMALL)
    moments, killed, tries = random.Random(2), 0, 0
    while killed < kills:
        tries += 1
        assert tries < 10 * kills  # some commands end before they are killed
        shutil.rmtree(output, ignore_errors=True)

        def progress():
            epochs = [int(p.stem.split("=")[1]) for p in output.glob("checkpoints/checkpoint_epoch=*.pt")]
            return max(epochs, default=0) + output.exists()

        start = lambda: command("training", CONFIGS / "train.json", start=True, max_epochs=EPOCHS, **options)  # noqa: E731
        if not kill_at_random(start, progress, EPOCHS, moments):
            continue
        killed += 1
        for path in (*output.glob("checkpoints/checkpoint_epoch=*.pt"), *output.glob("model.pt")):
            load(path)
        before = best_metric(output)
        finish("training", CONFIGS / "train.json", max_epochs=EPOCHS, **options)
        last = load(output / "checkpoints" / f"checkpoint_epoch={EPOCHS}.pt")
        assert last["trainer"]["iteration"] == EPOCHS  # of two cases in one batch each
        assert best_metric(output) >= before
        assert all(bool(torch.isfinite(value).all()) for value in load(output / "model.pt").values())


def write_better_and_better_weights(folder, written):
    """Replaces the best weights as often as it can: megabytes that all are the number of the epoch."""
    torch.set_num_threads(1)
    module = torch.nn.Linear(1000, 1000, bias=False)
    engine = Engine(lambda engine, batch: 0)
    BestCheckpointSaver(str(folder), {"model": module}, key_metric_filename="model.pt").attach(engine)

    @engine.on(Events.EPOCH_STARTED)
    def validate(engine):
        engine.state.key_metric_name = "dice"
        engine.state.metrics["dice"] = engine.state.epoch
        torch.nn.init.constant_(module.weight, engine.state.epoch)

    @engine.on(Events.EPOCH_COMPLETED)
    def tell(engine):
        written.value = engine.state.epoch

    engine.run([0], max_epochs=100_000)


@few_or_many
def test_best_weights_that_are_being_replaced_are_the_old_or_the_new_ones_after_a_kill(tmp_path, kills):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rare_unet_networks", "monai.bundle"])
    moments = random.Random(3)
    for i in range(kills):
        folder = tmp_path / str(i)
        written = context.Value("i", 0)
        process = context.Process(target=write_better_and_better_weights, args=(folder, written))
        process.start()
        while written.value < 1:
            assert process.is_alive()
            time.sleep(0.002)
        time.sleep(moments.random() * 0.2)
        process.kill()
        process.join()
        weight = load(folder / "model.pt")["weight"]
        assert weight.unique().numel() == 1
        assert int(weight[0, 0]) in (written.value, written.value + 1)
