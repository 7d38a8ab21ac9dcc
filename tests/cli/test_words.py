"""Wildcards, names that would be evaluated, and devices, by the functions and by real commands."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rare_unet_networks.bundle.device import check_device
from rare_unet_networks.cli.words import check_words

MODULE = "/site-packages/monai/bundle/__main__.py"
BUNDLE = Path(__file__).parents[2] / "bundles" / "hippocampus_mri_segmentation"
SCAN = BUNDLE / "sample" / "images" / "icbm152_left_4mm.nii.gz"


def words(*options):
    return [MODULE, "run", *options]


@pytest.mark.parametrize(
    "options",
    [
        ("inferring", "--input", "a"),
        ("--input", "a", "inferring"),
        ("--input=a", "inferring", "--amp"),
        ("--run_id", "inferring", "--config_file", "a"),
        ("inferring", "-input", "a", "--network_def#channels", "[2, 4]"),
        ("inferring", "--learning_rate", "-1"),
    ],
)
def test_commands_without_further_words_pass(options):
    check_words(words(*options))


@pytest.mark.parametrize(
    "options, named",
    [
        (("inferring", "--input", "a.nii", "b.nii"), "b.nii belong"),
        (("inferring", "--input", "a.nii", "b.nii", "c.nii", "--amp"), "b.nii, c.nii belong"),
        (("--input", "a.nii", "b.nii", "c.nii"), "c.nii belong"),
        (("--run_id", "inferring", "--input", "a.nii", "b.nii"), "b.nii belong"),
        (("inferring", "--input", "a.nii", "b\n.nii"), r"b\\n.nii belong"),
    ],
)
def test_further_words_are_named(options, named):
    with pytest.raises(SystemExit, match=f"error: {named}"):
        check_words(words(*options))


@pytest.mark.parametrize("options", [("--input", "a", "--amp", "--input", "b"), ("--input=a", "-input", "b")])
def test_an_option_with_two_values_is_named(options):
    with pytest.raises(SystemExit, match="error: --input is given as a and as b: give it once"):
        check_words(words("inferring", *options))
    check_words(words("inferring", "--input", "a", "--input=a"))


def test_other_programs_and_functions_are_left_alone():
    check_words(["/usr/bin/pytest", "a", "b", "c"])
    check_words([MODULE, "download", "--name", "a", "b", "c"])


@pytest.mark.parametrize("name", ["$x.nii.gz", "@x.nii.gz", "%x.nii.gz"])
def test_a_file_whose_name_would_be_evaluated_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    check_words(words("inferring", "--input", name))  # an expression
    (tmp_path / name).touch()
    with pytest.raises(SystemExit, match=r"--input .x.nii.gz is a file, .*: write \./.x.nii.gz"):
        check_words(words("inferring", "--input", name))


def command(cwd, line):
    """A line for the shell, which expands it."""
    line = line.replace("RUN", f"{sys.executable} -m monai.bundle run")
    line = line.replace("CONFIG", f"--config_file {BUNDLE}/configs/inference.json")
    line = line.replace(
        "EVALUATION", f"--config_file \"['{BUNDLE}/configs/inference.json','{BUNDLE}/configs/evaluate.json']\""
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(BUNDLE.parents[1])}
    kwargs = dict(shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return subprocess.run(line, cwd=cwd, env=environment, **kwargs)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("what", ["inferring CONFIG", "evaluating EVALUATION"])
def test_an_unquoted_wildcard_does_not_do_the_first_file_alone(tmp_path, what, count):
    for i in range(count):
        shutil.copy(SCAN, tmp_path / f"{i}.nii.gz")
    result = command(tmp_path, f"RUN {what} --output_dir out --input *.nii.gz")
    assert result.returncode == 1 and not (tmp_path / "out").exists(), result.stdout
    assert f"error: {', '.join(f'{i}.nii.gz' for i in range(1, count))} belong" in result.stdout


def test_four_files_of_an_unquoted_wildcard_are_an_error_of_the_runner(tmp_path):
    for i in range(4):
        (tmp_path / f"{i}.nii.gz").touch()
    result = command(tmp_path, "RUN inferring CONFIG --output_dir out --input *.nii.gz")
    assert result.returncode == 1 and not (tmp_path / "out").exists()
    assert re.fullmatch(r'ValueError: unknown file input: "\d.nii.gz"', result.stdout.splitlines()[-1])


def test_a_file_name_that_is_a_command_is_not_executed(tmp_path):
    name = "$__import__('os').mkdir('executed')"
    (tmp_path / name).touch()
    result = command(tmp_path, f'RUN inferring CONFIG --output_dir out --input "\\{name}"')
    assert result.returncode == 1 and "is a file, but a value that begins with $ is evaluated" in result.stdout
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "value, match",
    [
        ("gpu", "--device must be cpu, cuda or cuda:N, got gpu"),
        ("cuda:99", r"--device cuda:99: PyTorch sees \d+ GPU"),
    ],
)
def test_a_device_that_is_not_there_is_named(value, match):
    with pytest.raises(SystemExit, match=match):
        check_device(value)


@pytest.mark.parametrize("value", ["cpu", "cpu:0", "$torch.device('cuda')"])
def test_other_devices_pass(value):
    check_device(value)


def test_a_device_that_is_not_there_is_one_line_of_a_command(tmp_path):
    result = command(tmp_path, "RUN inferring CONFIG --output_dir out --device cuda:99")
    assert result.returncode == 1 and "Traceback" not in result.stdout
    assert result.stdout.splitlines()[-1].startswith("error: --device cuda:99: PyTorch sees")
