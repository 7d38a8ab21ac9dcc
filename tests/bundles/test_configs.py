"""The bundle's files agree with each other and with what MONAI expects of a bundle."""

import json
from pathlib import Path

import jsonschema
import pytest
import torch
from monai.bundle import ConfigParser, verify_net_in_out

from .conftest import BUNDLE, CONFIGS, SMALL, config, run

FILES = sorted(str(p.relative_to(CONFIGS)) for p in CONFIGS.rglob("*.json"))
COMPLETE = ("train.json", "inference.json", "evaluate.json")
# What stands in several files, because each of them has to work alone.
SHARED = ["bundle_root", "device", "class_names", "levels", "inferer_levels", "network_output", "network_def"]
SHARED_INFERENCE = ["checkpoint", "network", "num_workers", "dataset", "dataloader", "inferer", "finalize"]


def transforms(items):
    """Transforms without their keys, which differ where a file has labels beside the images."""
    names = ("LoadImaged", "rare_unet_networks.CheckScand", "Orientationd", "ScaleIntensityRangePercentilesd")
    return [{k: v for k, v in t.items() if k != "keys"} for t in items if t["_target_"] in names]


@pytest.mark.parametrize("name", FILES)
def test_no_key_stands_twice(name, monkeypatch):
    monkeypatch.setenv("MONAI_FAIL_ON_DUPLICATE_CONFIG", "1")
    ConfigParser.load_config_file(str(CONFIGS / name))


@pytest.mark.parametrize("key", SHARED)
def test_what_stands_in_all_three_files_is_equal(key):
    assert config("train.json")[key] == config("inference.json")[key] == config("evaluate.json")[key]


@pytest.mark.parametrize("key", SHARED_INFERENCE)
def test_what_stands_in_inference_and_evaluate_is_equal(key):
    assert config("inference.json")[key] == config("evaluate.json")[key]


def test_preprocessing_is_the_same_everywhere():
    train, inference, evaluate = map(config, COMPLETE)
    expected = transforms(inference["preprocessing"]["transforms"])
    assert len(expected) == 4
    assert transforms(evaluate["preprocessing"]["transforms"]) == expected
    assert transforms(train["train"]["deterministic_transforms"]) == expected
    assert transforms(train["validate"]["preprocessing"]["transforms"]) == expected
    # The pyramid of a training step is scaled level by level, as scans of these resolutions are.
    assert transforms(train["train"]["random_transforms"])[-1] == expected[-1]


def test_answers_are_made_the_same_way_everywhere():
    train, inference, evaluate = map(config, COMPLETE)

    def first_three(config):
        both, invert, discrete = config["postprocessing"]["transforms"][:3]
        both.pop("bring_back", None)  # an option of evaluate.json
        return both, {**invert, "transform": None}, discrete

    assert first_three(evaluate) == first_three(inference) == first_three(train["validate"])
    assert train["inferer"] == inference["inferer"] and train["validate"]["inferer"] == "@inferer"
    for metric in (train["validate"]["key_metric"]["val_mean_dice"], evaluate["key_metric"]["mean_dice"]):
        assert {k: v for k, v in metric.items() if k != "distances"} == {
            "_target_": "rare_unet_networks.ScaleDice", "class_names": "@class_names"
        }  # fmt: skip


def test_metadata_follows_monais_schema():
    schema = json.loads((Path(__file__).parent / "meta_schema_20240725.json").read_text())
    jsonschema.validate(config("metadata.json"), schema)


def test_metadata_says_what_the_configs_do():
    metadata, inference = config("metadata.json"), config("inference.json")
    io = metadata["network_data_format"]
    assert io["inputs"]["image"]["num_channels"] == inference["network_def"]["in_channels"]
    assert io["outputs"]["pred"]["num_channels"] == inference["network_def"]["out_channels"]
    assert io["inputs"]["image"]["spatial_shape"] == inference["levels"]["spatial_size"]
    assert list(io["outputs"]["pred"]["channel_def"].values()) == ["background", *inference["class_names"]]
    assert metadata["version"] in metadata["changelog"]


def test_network_takes_and_gives_what_the_metadata_says():
    files = dict(meta_file=str(CONFIGS / "metadata.json"), config_file=str(CONFIGS / "inference.json"))
    verify_net_in_out(net_id="network_def", device="cpu", **files)


@pytest.mark.parametrize(
    "name", ["LICENSE", "docs/README.md", "docs/data_license.txt", "configs/logging.conf", "models/model.pt"]
)
def test_bundle_has_the_files_of_a_bundle(name):
    assert (BUNDLE / name).stat().st_size > 0


@pytest.mark.parametrize("name", ["model.pt", "model_paper_split.pt"])
def test_shipped_weights_are_a_plain_state_dict_of_the_network(name):
    workflow = run("inference.json", run=False)
    state = torch.load(BUNDLE / "models" / name, weights_only=True)
    workflow.network_def.load_state_dict(state, strict=True)


def test_levels_fit_the_network():
    workflow = run("inference.json", run=False)
    network, levels = (workflow.parser.get_parsed_content(key) for key in ("network_def", "levels"))
    assert (levels.num_levels, levels.num_stages) == (network.num_levels, network.num_stages)


def test_no_property_of_a_training_workflow_is_missing(tiny, tmp_path):
    paths = dict(dataset_dir=str(tiny), splits_file=str(tiny / "splits.json"), output_dir=str(tmp_path))
    assert run("train.json", workflow_type="train", run=False, **paths, **SMALL).check_properties() == []


@pytest.mark.parametrize("name", ["inference.json", "evaluate.json"])
def test_no_property_of_an_inference_workflow_is_missing(name, tmp_path):
    paths = dict(dataset_dir=str(BUNDLE / "sample" / "Task04_Hippocampus")) if name == "evaluate.json" else {}
    assert run(name, run=False, output_dir=str(tmp_path), **paths).check_properties() == []


def test_splits_share_no_subject():
    splits = config("splits.json")
    assert {k: len(v) for k, v in splits.items()} == {
        "train": 166, "validation": 42, "test": 52, "paper_train": 148, "paper_test": 52, "paper_compared": 43
    }  # fmt: skip

    def subjects(name):  # volumes 2k - 1 and 2k are one person's
        return {(int(case.split("_")[1]) + 1) // 2 for case in splits[name]}

    assert not subjects("train") & subjects("validation")
    assert not (subjects("train") | subjects("validation")) & subjects("test")
    assert not subjects("paper_train") & subjects("paper_test")
    assert set(splits["paper_compared"]) == set(splits["paper_test"]) - set(splits["test"])
