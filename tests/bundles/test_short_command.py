"""``rare-unet``: what it computes is what MONAI's runner computes, and what its log says."""

import json
import os
import re
import shutil
import sys

import pytest

from . import processes
from .conftest import BUNDLES, CONFIGS, SAMPLE, command, read

BRAIN = BUNDLES["brain_tumor_mri_segmentation"]


def rare_unet(*words, cwd):
    """The short command, from a folder."""
    if words[0] in ("hippocampus", "brain-tumour"):
        words += ("--runtime", "eager")  # also where OpenVINO is installed
    words = [sys.executable, "-m", "rare_unet_networks", *map(str, words)]
    # One thread, as the commands of the runner have: sums depend on the number of threads in their last digits.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return processes.finish(processes.start(words, str(cwd), environment))


def numbers(content):
    """As ``values``, without a tolerance."""
    return {name: getattr(value, "expected", value) for name, value in values(content).items()}


def values(content, name=""):
    """The values of nested lists and dictionaries by their place; numbers may differ by 0.01 %."""
    if isinstance(content, (dict, list)):
        pairs = content.items() if isinstance(content, dict) else enumerate(content)
        found = {}
        for key, value in pairs:
            found |= values(value, f"{name}/{key}") if key != "seconds" else {}
        return found
    try:
        return {name: pytest.approx(float(content), rel=1e-4)}
    except (TypeError, ValueError):
        return {name: content}


def contents(folder):
    """Bytes of every file that was written but the report; values of records and the table."""
    files, tables = {}, {}
    for path in folder.iterdir():
        if path.suffix == ".json":
            tables[path.name] = json.loads(path.read_text())
        elif path.suffix == ".csv":
            tables[path.name] = read(path)
        elif path.is_file() and path.name != "report.html":
            files[path.name] = path.read_bytes()
    return files, tables


@pytest.mark.parametrize("options", [[], ["--grid", "fine", "--side=left", "--overwrite"]], ids=["plain", "options"])
def test_both_commands_write_the_same(tmp_path, options):
    scans = tmp_path / "scans"
    scans.mkdir()
    for name in ("icbm152_left_2mm", "icbm152_right_4mm"):
        shutil.copy(SAMPLE / "images" / f"{name}.nii.gz", scans)
    short = rare_unet("hippocampus", "scans", "-o", "short", *options, cwd=tmp_path)
    assert short.returncode == 0, short.stdout
    config = CONFIGS / "inference.json"
    long = command("inferring", config, *options, input=scans, output_dir="long", cwd=tmp_path)
    assert long.returncode == 0, long.stdout
    (files, tables), (expected_files, expected_tables) = (contents(tmp_path / name) for name in ("short", "long"))
    assert files == expected_files and len(files) == 2 + 2 and len(tables) == 2 + 1
    # Sums of floats depend in their last digits on where the memory of a process lies.
    assert numbers(tables) == values(expected_tables)


def test_scores_of_both_commands_are_the_same_bytes(tiny, trained, tmp_path):
    options = ["--splits_file", tiny / "splits.json", "--checkpoint", trained[1] / "model.pt"]
    options += ["--network_def#channels", "[2,4,4,4,4]", "--network_def#fine_channels", "[4,4,4]"]
    short = rare_unet("evaluate", "hippocampus", tiny, "-o", "short", *options, cwd=tmp_path)
    assert short.returncode == 0, short.stdout
    files = str([f"{CONFIGS}/{name}.json" for name in ("inference", "evaluate")]).replace(" ", "")
    long = command("evaluating", files, *map(str, options), dataset_dir=tiny, output_dir="long", cwd=tmp_path)
    assert long.returncode == 0, long.stdout
    for name in ("summary.csv", "metrics/per_case.csv"):
        assert (tmp_path / "short" / name).read_bytes() == (tmp_path / "long" / name).read_bytes()
    # Small noisy networks touch the border, lack classes, …: nothing of that is in the log of an evaluation.
    assert "WARNING" not in short.stdout and " side: " not in short.stdout


def test_an_evaluation_with_verbose_names_the_reasons(tiny, trained, tmp_path):
    options = ["--splits_file", tiny / "splits.json", "--checkpoint", trained[1] / "model.pt", "--val_levels", "[0]"]
    options += ["--network_def#channels", "[2,4,4,4,4]", "--network_def#fine_channels", "[4,4,4]"]
    result = rare_unet("evaluate", "hippocampus", tiny, "-o", "out", "-v", *options, cwd=tmp_path)
    assert result.returncode == 0, result.stdout
    assert "rare_unet_networks.transforms.quality - WARNING - " in result.stdout and " side: " in result.stdout
    assert "runs: python -m monai.bundle run evaluating" in result.stdout


def test_the_log_has_one_line_a_scan_and_none_about_engines(tmp_path):
    result = rare_unet("hippocampus", SAMPLE / "images", "-o", "out", cwd=tmp_path)
    assert result.returncode == 0, result.stdout
    lines = result.stdout.splitlines()
    assert lines[0].startswith("rare-unet ")
    for position in range(1, 9):
        (line,) = [line for line in lines if f" - {position} of 8: icbm152_" in line]
        assert re.search(r"mm -> level \d, (left|right) side, anterior \d+ mm3, .* doubt 0\.\d\d, \d+\.\d\d s", line)
    for word in ("Epoch[", "Engine run", "input summary", "Setting logging", "parsing config_file", "entropy per"):
        assert word not in result.stdout
    # The command's own line, the number of scans, the weights, 8 scans, 2 lines on tables, 9 of the table, 1 on what
    # should be reviewed, 1 on the report, and the last.
    assert len(lines) == 1 + 2 + 8 + 2 + 9 + 1 + 1 + 1 and lines[-1].endswith("8 of 8 done")


def test_a_bundle_that_is_named_runs_code_and_monai_says_so(tmp_path):
    scan = SAMPLE / "images" / "icbm152_left_4mm.nii.gz"
    result = rare_unet("hippocampus", scan, "-o", "out", "--bundle", CONFIGS.parent, cwd=tmp_path)
    assert result.returncode == 0 and "parsing config_file" in result.stdout


def test_the_status_is_that_of_the_runner(tmp_path):
    (tmp_path / "scan.nii.gz").write_text("no scan")
    result = rare_unet("hippocampus", "scan.nii.gz", "-o", "out", cwd=tmp_path)
    assert result.returncode == 1 and result.stdout.splitlines()[-1].endswith("1 of 1 failed: scan.nii.gz")
    result = rare_unet("hippocampus", "scan.nii.gz", "--grdi", "fine", cwd=tmp_path)
    assert result.returncode == 1 and "--grdi is neither an option" in result.stdout and "--grid?" in result.stdout


def test_help_of_the_bundle_runner_points_to_the_list_of_options():
    result = command("inferring", CONFIGS / "inference.json", "--help")
    assert result.returncode == 0 and "docs/options.md" in result.stdout
    assert "rare-unet hippocampus --help" in result.stdout and "neither an option" not in result.stdout


def test_a_tumour_case_that_fails_is_named_by_its_folder_not_by_a_file_that_does_not_exist(tmp_path):
    case = tmp_path / "p1"
    shutil.copytree(BRAIN / "sample" / "images" / "phantom_files", case)
    result = rare_unet("brain-tumour", "p1", "-o", "out", "--check#channels", "5", cwd=tmp_path)
    assert result.returncode == 1, result.stdout
    assert "ERROR - p1/phantom_files: expected 5 channel(s), got 4" in result.stdout
    assert "phantom_files.nii.gz" not in result.stdout
