import json
import sys
from pathlib import Path

import pytest

from rare_unet_networks.bundle import prediction_options
from rare_unet_networks.data import CaseRecords

MODULE = "/site-packages/monai/bundle/__main__.py"
CONFIG = {
    "imports": ["$import torch"],
    "dataset_dir": "scans",
    "device": "cpu",
    "side": "auto",
    "amp": False,
    "checkpoint": "model.pt",
    "network_def": {"_target_": "Network", "channels": [1, 2]},
    "overlap": 0.25,
    "class_names": ["a"],
    "inferer": "@network_def",
}


@pytest.fixture
def options(tmp_path, monkeypatch):
    """The options of a command with these words."""
    (tmp_path / "inference.json").write_text(json.dumps(CONFIG))
    monkeypatch.chdir(tmp_path)

    def of(*words, config=None):
        file = "inference.json"
        if config:
            (tmp_path / "overlay.json").write_text(json.dumps(config))
            file = "['inference.json','overlay.json']"
        monkeypatch.setattr(sys, "argv", [MODULE, "run", "inferring", "--config_file", file, *words])
        return prediction_options()

    return of


def test_plain_values_and_overrides_are_named(options):
    assert options()["options"] == {"side": "auto", "amp": False, "overlap": 0.25}
    named = options("--side", "right", "--network_def#channels", "[2,4]", "--output_dir", "out")["options"]
    assert named == {"side": "right", "amp": False, "overlap": 0.25, "network_def#channels": [2, 4]}


@pytest.mark.parametrize(
    "words",
    [
        ("--dataset_dir", "other"),
        ("--output_dir=2024.10",),
        ("--checkpoint", "other.pt"),
        ("--device", "cuda:1"),
        ("--num_workers", "4"),
        ("--dataloader#num_workers", "4"),
        ("--part", "3/100"),
        ("--overwrite", "True"),
        ("--side", "auto"),
        ("--amp", "False"),
        ("--amp", "false"),
        ("--overlap", "0.25"),
        ("--logging_file", "none"),
    ],
)
def test_where_how_fast_and_which_scans_makes_no_other_predictions_nor_does_a_default_that_is_given(options, words):
    assert options(*words)["config"] == options()["config"]


@pytest.mark.parametrize(
    "words",
    [
        ("--side", "right"),
        ("--amp", "True"),
        ("--amp", "true"),
        ("--network_def#channels", "[2,4]"),
        ("--overlap=0.5",),
    ],
)
def test_another_option_makes_other_predictions(options, words):
    assert options(*words)["config"] != options()["config"]
    assert options(*words) == options(*words)


def test_another_config_makes_other_predictions_and_one_that_joins_processes_does_not(options):
    assert options(config={"network_def": {"_target_": "Other"}})["config"] != options()["config"]
    joining = {"+imports": ["$import os"], "device": "cuda", "+initialize": ["$join()"]}
    assert options(config={"initialize": [], **joining})["config"] == options()["config"]


BUNDLES = sorted(path.parent for path in (Path(__file__).parents[2] / "bundles").glob("*/configs"))


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_a_case_that_one_process_segmented_is_done_for_several(bundle, monkeypatch, tmp_path):
    monkeypatch.chdir(bundle / "configs")

    def of(config_file):
        monkeypatch.setattr(sys, "argv", [MODULE, "run", "inferring", "--config_file", config_file])
        return prediction_options()

    alone, several = of("inference.json"), of("['inference.json','multi_gpu_inference.json']")
    assert alone == several and "no_package" not in alone["options"]
    item = {"case": "a", "image": str(tmp_path / "a.nii.gz")}
    weights = tmp_path / "model.pt"
    for path in (tmp_path / "a.nii.gz", weights, tmp_path / "a_seg.nii.gz"):
        path.touch()
    records = CaseRecords(str(tmp_path), "scan", str(weights), alone)
    assert records.pending([item]) == [item]
    assert records.acquire(item)
    volumes = {"x": {"voxels": 1, "mm3": 1.0, "mm3_fine": 1.0}}
    records.write("a", volumes=volumes, spacing=[1.0] * 3, level=0, seconds=1.0)
    assert CaseRecords(str(tmp_path), "scan", str(weights), several).pending([item]) == []


def test_what_another_program_sets_is_not_known(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["program.py"])
    assert prediction_options() is None
