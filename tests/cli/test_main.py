"""The command that MONAI's runner gets, and the texts, without running anything."""

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from rare_unet_networks import __version__
from rare_unet_networks.cli import main as cli
from rare_unet_networks.cli.descriptions import COMPONENTS, OPTIONS
from rare_unet_networks.cli.help import options_page
from rare_unet_networks.cli.options import COMMANDS, read_options
from rare_unet_networks.cli.places import find_bundles

REPOSITORY = Path(__file__).parents[2]
BUNDLES = REPOSITORY / "bundles"
CONFIGS = BUNDLES / "hippocampus_mri_segmentation" / "configs"
TUMOUR = BUNDLES / "brain_tumor_mri_segmentation" / "configs"


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """Words that the runner would get, from a folder with a scan, a folder and an overlay."""
    calls = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setattr(cli.runpy, "run_module", lambda *args, **kwargs: calls.append((args, kwargs, sys.argv)))
    for name in ("scan.nii.gz", "7", "mine.json"):
        (tmp_path / name).touch()
    return calls


def configs(*names):
    return str([str(CONFIGS / name) for name in names])


@pytest.mark.parametrize(
    "words, expected",
    [
        (
            ["hippocampus", "scan.nii.gz", "-o", "out"],
            [
                "inferring",
                "--config_file",
                f"{CONFIGS}/inference.json",
                "--input",
                "./scan.nii.gz",
                "--output_dir",
                "out",
            ],
        ),
        (
            ["segment", "hippocampus", "7", "--output_dir=out", "--overwrite"],
            [
                "inferring",
                "--config_file",
                f"{CONFIGS}/inference.json",
                "--input",
                "./7",
                "--output_dir=out",
                "--overwrite",
            ],
        ),
        (
            ["--grid", "fine", "hippocampus", "--levels#routing", "size", "scan.nii.gz", "--overwrite", "-o=out"],
            [
                "inferring",
                "--config_file",
                f"{CONFIGS}/inference.json",
                "--input",
                "./scan.nii.gz",
                "--grid",
                "fine",
                "--levels#routing",
                "size",
                "--overwrite",
                "--output_dir=out",
            ],
        ),
        (["brain-tumour", "7"], ["inferring", "--config_file", f"{TUMOUR}/inference.json", "--input", "./7"]),
        (["brain-tumour", "--input=7"], ["inferring", "--config_file", f"{TUMOUR}/inference.json", "--input=7"]),
        (
            ["evaluate", "hippocampus", "7", "--split", "test"],
            [
                "evaluating",
                "--config_file",
                configs("inference.json", "evaluate.json"),
                "--dataset_dir",
                "./7",
                "--split",
                "test",
            ],
        ),
        (["train", "hippocampus"], ["training", "--config_file", f"{CONFIGS}/train.json"]),
        (
            ["train", "hippocampus", "7", "--overlay", "mine.json"],
            ["training", "--config_file", str([f"{CONFIGS}/train.json", "./mine.json"]), "--dataset_dir", "./7"],
        ),
        (["finetune", "hippocampus"], ["training", "--config_file", configs("train.json", "finetune.json")]),
        (
            ["calibrate", "hippocampus"],
            ["calibrating", "--config_file", configs("inference.json", "evaluate.json", "calibrate.json")],
        ),
        (
            ["export", "hippocampus", "not_there_yet"],
            ["exporting", "--config_file", configs("inference.json", "export.json"), "--export_dir", "not_there_yet"],
        ),
    ],
)
def test_a_command_is_one_of_the_bundle_runner(runs, capsys, words, expected):
    assert cli.main([*words, "--bundle", str(BUNDLES)]) == 0
    assert runs == [
        (("monai.bundle",), {"run_name": "__main__", "alter_sys": True}, ["monai.bundle", "run", *expected])
    ]
    task, version = ("brain-tumour", "0.5.0") if "brain" in words[0] else ("hippocampus", "0.7.0")
    assert capsys.readouterr().err.startswith(f"rare-unet {__version__}: {task}, weights {version}, {BUNDLES}")


def test_verbose_logs_more_and_shows_the_command(runs, capsys):
    assert cli.main(["hippocampus", "scan.nii.gz", "-v", "--bundle", str(BUNDLES)]) == 0
    assert runs[0][2][-2:] == ["--logging_file", str(CONFIGS / "logging_debug.conf")]
    assert "runs: python -m monai.bundle run inferring --config_file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, message",
    [
        (["hippocampus", "absent.nii"], "error: input must exist, absent.nii does not."),
        (["evaluate", "hippocampus", "absent"], "error: dataset_dir must exist, absent does not."),
        (
            ["hippocampus", "scan.nii.gz", "--input", "7"],
            "error: --input is given as ./scan.nii.gz and as 7: give it once.",
        ),
        (
            ["hippocampus", "7", "-o", "a", "--output-dir=b"],
            "error: --output_dir is given as a and as b: give it once.",
        ),
        (["hippocampus", ""], "error: input must be a path, got none."),
        (["hippocampus", "7", "scan.nii.gz"], "error: scan.nii.gz: one file or folder can be given"),
        (["evaluate"], "error: expected a task; rare-unet --help lists the tasks and commands."),
        (["--grid", "fine"], "error: expected a task"),
        (["hippocampus"], "error: expected a scan or a folder of scans after hippocampus; samples are in "),
        (["scan.nii.gz"], "error: expected a task before scan.nii.gz, such as brain-tumour or hippocampus."),
        (["hippo"], "error: no bundle of the task 'hippo' in "),
        (["hippocampus", "--bundle"], "error: --bundle needs a value, a path."),
        (["hippocampus", "--overlay", "--grid", "fine"], "error: --overlay needs a value, a path."),
        (["hippocampus", "7", "--overlay", "absent.json"], "error: --overlay must exist, absent.json does not."),
        (["hippocampus", "--bundle", "7"], "error: --bundle must be a folder or a zip of a bundle, 7 is a file of"),
    ],
)
def test_a_wrong_command_line_ends_with_one_line(runs, capsys, words, message):
    assert cli.main(words) == 2
    output = capsys.readouterr()
    assert output.err.startswith(message) and output.err.count("\n") == 1 and not output.out
    assert not runs


def test_version_names_the_weights_of_each_task(capsys):
    assert cli.main(["--version", "--bundle", str(BUNDLES)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"rare-unet {__version__}"
    assert lines[1:] == [
        f"brain-tumour: weights 0.5.0, {TUMOUR.parent}",
        f"hippocampus: weights 0.7.0, {CONFIGS.parent}",
    ]


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_lists_tasks_commands_and_every_option_of_segmenting(capsys, words):
    assert cli.main([*words, "--bundle", str(BUNDLES)]) == 0
    text = capsys.readouterr().out
    for word in [*COMMANDS, "hippocampus", "brain-tumour", "--bundle", "--version", "--overlay"]:
        assert word in text
    options = {o.name for path in (CONFIGS, TUMOUR) for o in read_options([path / "inference.json"])}
    assert options == set(re.findall(r"^  --(\w+)(?:, -o)?$", text, re.MULTILINE)) > {"grid", "side", "extra_levels"}
    assert "--output_dir, -o\n      folder for what is written\n      default: BUNDLE/output/inference; " in text


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_a_help_of_its_own_options(capsys, name):
    assert cli.main([name, "hippocampus", "--help", "--bundle", str(BUNDLES)]) == 0
    of_task = capsys.readouterr().out
    options = read_options([CONFIGS / file for file in COMMANDS[name].files])
    for option in options:
        assert f"--{option.name}" in of_task and f"default: {option.default}; example: " in of_task
    assert "brain-tumour" not in of_task
    assert cli.main([name, "--help", "--bundle", str(BUNDLES)]) == 0
    assert "usage: rare-unet" in capsys.readouterr().out


def test_every_option_of_the_bundles_is_described_and_no_other():
    described, plain = set(), set()
    for configs in (CONFIGS, TUMOUR):
        for command in COMMANDS.values():
            for option in read_options([configs / file for file in command.files]):
                (described if option.text else plain).add(option.name)
    assert plain == set(), "a description in rare_unet_networks/cli/descriptions.py is missing"
    assert described == set(OPTIONS)


def test_every_entry_of_the_configs_is_in_one_of_the_lists():
    import json

    entries = set()
    for configs in (CONFIGS, TUMOUR):
        for name in {file for command in COMMANDS.values() for file in command.files}:
            entries |= {key for key in json.loads((configs / name).read_text()) if "#" not in key and key[0] != "+"}
    assert entries == set(OPTIONS) | set(COMPONENTS)
    assert not set(OPTIONS) & set(COMPONENTS)


def test_the_page_of_options_is_current():
    """Written by ``python -m rare_unet_networks.cli.help > docs/options.md``."""
    assert (REPOSITORY / "docs" / "options.md").read_text() == options_page(find_bundles(BUNDLES))


@pytest.mark.parametrize("text, message", [("{", "must be a JSON file"), ("[]", "must be a JSON object, got a list")])
def test_a_damaged_config_is_named(tmp_path, text, message):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"a.json {message}"):
        read_options([path])


def test_help_imports_neither_torch_nor_monai_and_takes_less_than_a_second():
    command = [sys.executable, "-X", "importtime", "-m", "rare_unet_networks", "--help"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 0 and "usage: rare-unet" in result.stdout
    imported = set(re.findall(r"^import time: .* ([\w.]+)$", result.stderr, re.MULTILINE))
    assert {"rare_unet_networks", "rare_unet_networks.cli.main"} <= imported
    assert not {"torch", "monai", "numpy", "nibabel", "ignite"} & imported
    # Processor time, which other programs of the machine do not lengthen.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1
