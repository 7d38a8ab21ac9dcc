"""Damaged files, weights and predictions in real runs: one line each, the others go on, never exit status 0."""

import shutil
import signal
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest
from ignite.engine import Events

from rare_unet_networks.engines import exit_status

from .conftest import CONFIGS, SAMPLE, SMALL, command, run

IMAGES = SAMPLE / "images"


def errors(text):
    return [line for line in text.splitlines() if " - ERROR - " in line]


def cut(path):
    path.write_bytes(path.read_bytes()[:-30])


def test_a_damaged_scan_and_an_odd_name_fail_alone(tmp_path):
    scans, output = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    for name in ("good", "cut", "a\nb"):
        shutil.copy(IMAGES / "icbm152_left_4mm.nii.gz", scans / f"{name}.nii.gz")
    cut(scans / "cut.nii.gz")
    result = command("inferring", CONFIGS / "inference.json", input=scans, output_dir=output)
    assert result.returncode == 1 and (output / "good_seg.nii.gz").exists()
    broken, odd, summary = sorted(errors(result.stdout), key=lambda line: ("failed: " in line, "a\\nb" in line))
    assert f"{scans}/cut.nii.gz: the file is damaged or cut" in broken
    assert rf"{scans}/a\nb.nii.gz: the name holds control characters" in odd
    assert "2 of 3 failed" in summary and r"a\nb.nii.gz" in summary
    assert sorted(p.name for p in output.glob("*.nii.gz")) == ["good_seg.nii.gz"]


def broken_dataset(tiny, folder, kind):
    shutil.copytree(tiny, folder)
    path = folder / "labelsTr" / "c.nii.gz"
    if kind == "cut":
        cut(path)
    else:
        label = np.asarray(nib.load(path).dataobj)
        values = np.stack([label == i for i in range(3)], -1).astype(np.uint8)
        if kind == "nan":
            values = label.astype(np.float32)
            values[0, 0, 0] = np.nan
        nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    return path


REASONS = {"cut": "the file is damaged or cut", "one-hot": "got 3 (one-hot?)", "nan": "voxels that are NaN"}


@pytest.mark.parametrize("kind", REASONS)
def test_a_label_that_is_none_is_one_failure_of_evaluating_and_one_line_of_training(tiny, trained, tmp_path, kind):
    dataset = tmp_path / "data"
    label = broken_dataset(tiny, dataset, kind)
    options = dict(dataset_dir=dataset, splits_file=dataset / "splits.json", **SMALL)
    weights = trained[1] / "model.pt"
    files = f"['{CONFIGS}/inference.json','{CONFIGS}/evaluate.json']"
    result = command("evaluating", files, checkpoint=weights, output_dir=tmp_path / "e", **options)
    assert result.returncode == 1, result.stdout
    failure, summary = errors(result.stdout)
    assert f"{label}: " in failure and REASONS[kind] in failure
    assert "4 of 8 failed" in summary
    result = command("training", CONFIGS / "train.json", max_epochs=1, output_dir=tmp_path / "t", **options)
    assert result.returncode == 1 and "Traceback" not in result.stdout, result.stdout
    lines = [line for line in result.stdout.splitlines() if REASONS[kind] in line]
    assert len(lines) == 1 and lines[0].startswith(f"error: {label}: ")


def test_weights_that_are_a_pointer_end_a_run_with_one_line(tmp_path):
    (tmp_path / "model.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    result = command(
        "inferring", CONFIGS / "inference.json", checkpoint=tmp_path / "model.pt", output_dir=tmp_path / "out"
    )
    assert result.returncode == 1 and "Traceback" not in result.stdout
    (line,) = [line for line in result.stdout.splitlines() if "git-lfs" in line]
    assert line.startswith(f"error: {tmp_path}/model.pt: expected weights") and "weights_only" not in result.stdout


def test_predictions_that_are_gone_at_the_end_are_an_error(tmp_path, caplog):
    workflow = run("inference.json", input=str(IMAGES), output_dir=str(tmp_path / "out"), run=False)
    evaluator = workflow.parser.get_parsed_content("evaluator")
    moved = tmp_path / "out" / "icbm152_left_1mm_seg.nii.gz"

    @evaluator.on(Events.ITERATION_COMPLETED(once=3))
    def remove():
        moved.unlink()

    workflow.run()
    with pytest.raises(SystemExit) as error:
        exit_status(evaluator)
    assert error.value.code == 1
    assert "icbm152_left_1mm.nii.gz: " in caplog.text and "was written, but is no longer there" in caplog.text
    assert "1 of 8 failed" in caplog.text


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_interrupted_training_says_so_in_one_line(tiny, tmp_path):
    words = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", str(CONFIGS / "train.json")]
    options = dict(dataset_dir=tiny, splits_file=tiny / "splits.json", output_dir=tmp_path, max_epochs=1000, **SMALL)
    words += [word for key, value in options.items() for word in (f"--{key}", str(value))]
    # A shell that starts it in the background would have it ignore the signal.
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.time() + 120
    while not (tmp_path / "checkpoints" / "checkpoint_epoch=1.pt").exists():
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    text = process.communicate(timeout=60)[0]
    assert process.returncode != 0
    assert text.count("error: stopped by the user") == 1 and "Traceback" not in text, text[-3000:]
