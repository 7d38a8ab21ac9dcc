"""The bundles' files agree with each other. What MONAI expects of a bundle: tools/verify_bundle and its test."""

import json
from types import SimpleNamespace

import pytest
import torch
from monai.bundle import ConfigParser

import rare_unet_networks
from rare_unet_networks.utils.errors import is_user_error, root_cause

from .conftest import BUNDLES, REPOSITORY, config, run

HIPPOCAMPUS, BRAIN = BUNDLES["hippocampus_mri_segmentation"], BUNDLES["brain_tumor_mri_segmentation"]
LINES = {HIPPOCAMPUS: 450, BRAIN: 480}  # of the three configs together
# What stands in both, because MONAI Label loads inference.json alone.
SHARED = ["bundle_root", "device", "class_names", "scaling", "levels", "network_def", "check", "prepare"]
SHARED += ["routing", "inferer"]
SHARED_IF_THERE = ["modalities", "allow_missing", "coarser", "no_package"]
# Whole heads are segmented, but not trained on: these stand in inference.json alone, and the wrapper's name.
HEADS = {
    "check": ["field_of_view"],
    "inferer": ["_target_", "class_names", "locate", "field_of_view", "max_extent"],
}
WITHOUT_LABELS = ("LoadImaged", "rare_unet_networks.transforms.LoadModalitiesd")


@pytest.fixture(params=BUNDLES.values(), ids=list(BUNDLES))
def bundle(request):
    return request.param


def of_image(loads):
    """The first transform that loads an image, without the keys, which differ where a label is loaded beside it."""
    (load,) = [t for t in loads if t["_target_"] in WITHOUT_LABELS and "image" in t["keys"]]
    return {key: value for key, value in load.items() if key != "keys"}


WITH_FORCE = "$not rn.utils.is_on(@force)"


def test_training_and_inference_name_the_same_network_checks_and_inferer(bundle):
    train, inference = (config(f"{name}.json", bundle) for name in ("train", "inference"))
    for key in [*SHARED, *(key for key in SHARED_IF_THERE if key in inference)]:
        expected, got = train[key], inference[key]
        if bundle == HIPPOCAMPUS and key in HEADS:
            got = {name: value for name, value in got.items() if name not in HEADS[key]}
            expected = {name: value for name, value in expected.items() if name not in HEADS[key]}
        if key == "inferer":  # a training needs no measures of trust
            got.pop("agreement", None)
        if key == "inferer" and bundle == HIPPOCAMPUS:
            assert got["inferer"]["_target_"].endswith(".TrustInferer")
            got["inferer"] = got["inferer"]["inferer"]
            assert got["inferer"] == "@routing"
        if key == "check":  # a training warns of a head with its skull
            assert got.pop("refuse", WITH_FORCE) == WITH_FORCE
        assert got == expected, key
    assert train["validate"]["inferer"] == "@inferer"
    load = of_image(inference["load"])
    load.pop("strip", None)  # labelled scans to train on have no skull
    assert of_image(train["load"]) == load


def test_evaluating_is_the_inference_but_for_labels_and_scores(bundle):
    """Whatever else evaluate.json replaced would be evaluated otherwise than it is used."""
    assert set(config("evaluate.json", bundle)) - {"regions"} == {
        *("dataset_dir", "output_dir", "split", "splits_file", "downsample", "label_spacing", "trust", "val_levels"),
        *("runtime",),
        *("load", "coarsen", "preprocessing#transforms", "cases", "data", "dataloader#sampler"),
        *("to_scores", "postprocessing#transforms", "key_metric", "evaluator#key_val_metric", "handlers"),
        *("evaluating", "run"),
    }  # fmt: skip
    evaluate, inference = config("evaluate.json", bundle), config("inference.json", bundle)
    assert of_image(evaluate["load"]) == of_image(inference["load"])
    assert evaluate["preprocessing#transforms"] == "$@load + @coarsen + @prepare"
    assert evaluate["postprocessing#transforms"] == "$@check_logits + @to_scan_grid + @to_labels + @to_scores"
    assert evaluate["handlers"][0] == inference["handlers"][0]  # loads the weights


def test_validation_makes_labels_and_scores_as_evaluating_does(bundle):
    train, inference, evaluate = (config(f"{name}.json", bundle) for name in ("train", "inference", "evaluate"))
    validate = train["validate"]
    evaluate["load"][0].pop("strip", None)  # labelled scans to train on have no skull
    assert train["load"] == evaluate["load"]
    *labels, scores = validate["postprocessing"]["transforms"]
    expected = []
    for transform in inference["to_scan_grid"] + inference["to_labels"]:
        if "ReviewPredictiond" in transform["_target_"]:
            continue  # nobody reviews the predictions of a validation
        expected.append(
            {**transform, "transform": "@validate#preprocessing"} if "transform" in transform else transform
        )
    assert labels == expected and [scores] == evaluate["to_scores"]
    validation, evaluation = validate["key_metric"]["val_mean_dice"], evaluate["key_metric"]["mean_dice"]
    assert {**validation, "distances": evaluation["distances"]} == evaluation


def test_training_turns_scans_as_inference_does_and_scales_them_alike(bundle):
    train, inference = config("train.json", bundle), config("inference.json", bundle)
    check, turn, scale = inference["prepare"]
    assert (check, scale) == ("@check", "@scaling") and "_target_" in inference["scaling"]
    assert {**train["train"]["orient"], "keys": "image"} == turn
    assert train["train"]["deterministic_transforms"].startswith("$@load + [@check, @train#orient, ")
    # The pyramid of a training step is scaled level by level, as scans of these resolutions are; a patch by the whole
    # scan's statistics, which gives an uncut scan the same (tests/transforms/test_standardization.py).
    *_, last = train["train"]["random_transforms"]
    if last["_target_"] == "rare_unet_networks.transforms.StandardizeForegroundd":
        scaling = {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True, "channel_wise": True}
        assert inference["scaling"] == scaling and last["levels"] == "@train_levels"
    else:
        assert last.pop("allow_missing_keys")  # a coarse label has no fine levels
        assert {**last, "keys": "image"} == inference["scaling"]


ALIKE = ["export", "finetune", "monai_label", "multi_gpu_train", "multi_gpu_inference", "tracking_wandb"]


@pytest.mark.parametrize("name", ALIKE)
def test_what_is_no_tasks_own_is_the_same_in_both_bundles(name):
    """A bundle has to stand alone, so each has its copy."""
    assert (HIPPOCAMPUS / f"configs/{name}.json").read_bytes() == (BRAIN / f"configs/{name}.json").read_bytes()


def expressions(content):
    """Every ``$`` string of a config, at any depth."""
    if isinstance(content, str):
        return [content] if content.startswith("$") else []
    children = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    return [expression for child in children for expression in expressions(child)]


def test_the_configs_stay_short_and_their_expressions_are_one_line(bundle):
    files = [bundle / "configs" / name for name in ("inference.json", "evaluate.json", "train.json")]
    assert sum(len(path.read_text().splitlines()) for path in files) <= LINES[bundle]
    for path in (bundle / "configs").glob("*.json"):
        assert [text for text in expressions(config(path.name, bundle)) if len(text) > 110] == [], path.name


SWITCHES = [
    (HIPPOCAMPUS, "inference.json", "amp", "evaluator"),
    (HIPPOCAMPUS, "train.json", "amp", "validate#evaluator"),
    (HIPPOCAMPUS, "train.json", "amp", "train#trainer"),
    (BRAIN, "inference.json", "amp", "evaluator"),
    (BRAIN, "train.json", "amp", "validate#evaluator"),
    (BRAIN, "train.json", "amp", "train#trainer"),
    (BRAIN, "inference.json", "allow_missing", "check"),
    (BRAIN, "train.json", "allow_missing", "check"),
]


def switch_of(content, name):
    """The expressions of a config that read a switch."""
    return [expression for expression in expressions(content) if f"@{name})" in expression]


@pytest.mark.parametrize("bundle, file, name, entry", SWITCHES)
def test_a_switch_that_is_neither_on_nor_off_is_an_error_in_one_line(bundle, file, name, entry):
    (expression,) = set(switch_of(config(file, bundle)[entry.split("#")[0]], name))
    for value, is_on in ((True, True), ("true", True), ("1", True), ("False", False), (0, False)):
        content = {"imports": ["$import rare_unet_networks as rn"], name: value, "switch": expression}
        assert ConfigParser(content).get_parsed_content("switch") is is_on
    with pytest.raises(RuntimeError) as error:
        ConfigParser({**content, name: "perhaps"}).get_parsed_content("switch")
    assert is_user_error(error.value) and root_cause(error.value) == "expected true or false, got 'perhaps'."


@pytest.mark.parametrize("value, is_disabled", [("true", False), ("False", True), (False, True)])
def test_segmentations_of_an_evaluation_are_saved_by_a_switch(value, is_disabled):
    overlay = json.loads((REPOSITORY / "docs/experiment/overlays/paper_protocol.json").read_text())
    (saver,) = overlay["+handlers"]
    content = {"imports": ["$import rare_unet_networks as rn"], "save_answers": value, "off": saver["_disabled_"]}
    assert ConfigParser(content).get_parsed_content("off") is is_disabled
    with pytest.raises(RuntimeError) as error:
        ConfigParser({**content, "save_answers": "perhaps"}).get_parsed_content("off")
    assert is_user_error(error.value) and root_cause(error.value) == "expected true or false, got 'perhaps'."


@pytest.mark.parametrize("grid, name", [("scan", "a_seg.nii.gz"), ("fine", "a_fine_seg.nii.gz")])
def test_a_clash_of_two_scans_names_the_file_that_both_would_write(bundle, tmp_path, grid, name):
    for suffix in (".nii", ".nii.gz"):
        (tmp_path / f"a{suffix}").touch()
    parser = run(
        "inference.json", run=False, bundle=bundle, input=str(tmp_path), grid=grid, output_dir=str(tmp_path / "out")
    ).parser
    scans = parser.get_parsed_content("scans")
    assert [scan["failure"] for scan in scans] == [f"another scan would write {name} as well"] * 2
    layout = parser.get_parsed_content("postprocessing").transforms[-1].saver.folder_layout
    assert layout.filename("a.nii.gz").name == name


def test_metadata_says_what_the_configs_do(bundle):
    metadata, inference = config("metadata.json", bundle), config("inference.json", bundle)
    io = metadata["network_data_format"]
    assert io["inputs"]["image"]["spatial_shape"] == inference["levels"]["spatial_size"]
    assert list(io["outputs"]["pred"]["channel_def"].values()) == ["background", *inference["class_names"]]
    if "modalities" in inference:
        assert list(io["inputs"]["image"]["channel_def"].values()) == list(inference["modalities"])


def test_metadata_names_the_labels_of_a_crop_and_of_a_whole_head():
    names = config("inference.json")["class_names"]
    maps = config("metadata.json")["network_data_format"]["post_processed_outputs"]
    of_head = [f"{side} {name}" for side in ("left", "right") for name in names]
    for kind, labels in (("crop", names), ("head", of_head)):
        assert maps[kind]["label_def"] == {str(i): name for i, name in enumerate(["background", *labels])}
        assert maps[kind]["value_range"] == [0, len(labels)]


def test_weights_of_monai_label_are_replaced_as_a_whole_and_a_full_disk_is_named(bundle, tmp_path, monkeypatch):
    saver = {"bundle_root": str(tmp_path), "save_weights": config("monai_label.json", bundle)["save_weights"]}
    save_weights = ConfigParser(saver).get_parsed_content("save_weights")
    save_weights({"a": torch.ones(3)}, "model.pt")
    before = (tmp_path / "models" / "model.pt").read_bytes()

    def save(content, target, *args, **kwargs):
        (target.write if hasattr(target, "write") else target.write_bytes)(b"cut")
        raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 640 vs 534")

    monkeypatch.setattr(torch, "save", save)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(OSError, match=r"model\.pt could not be written: No space left on device"):
        save_weights({"a": torch.zeros(3)}, "model.pt")
    assert [(p.name, p.read_bytes()) for p in (tmp_path / "models").iterdir()] == [("model.pt", before)]


@pytest.mark.parametrize("channels, gateways", [([2, 4, 4, 4], 2), ([2, 4, 4, 4, 4], 0)])
def test_the_levels_follow_the_network(bundle, channels, gateways):
    options = {"network_def#channels": channels, "network_def#num_gateways": gateways, "network_def#fine_convs": 0}
    workflow = run("inference.json", run=False, bundle=bundle, **options)
    network, levels = (workflow.parser.get_parsed_content(key) for key in ("network_def", "levels"))
    assert (levels.num_levels, levels.num_stages) == (network.num_levels, network.num_stages)
    assert (levels.num_levels, levels.num_stages) == (gateways + 1, len(channels))


def test_the_splits_of_the_tumour_cases_share_no_case():
    splits = config("splits.json", BRAIN)
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [18, 4, 0]
    cases = splits["train"] + splits["validation"]
    assert len(set(cases)) == 22
    whole = config("splits_task01.json", BRAIN)
    assert len(set(whole["train"] + whole["validation"])) == len(whole["train"]) + len(whole["validation"]) == 484


def test_the_version_of_the_package_is_the_one_the_bundles_need(bundle):
    needed = config("metadata.json", bundle)["required_packages_version"]["rare-unet-networks"]
    assert needed == rare_unet_networks.__version__


def test_splits_share_no_subject():
    splits = config("splits.json")
    assert {k: len(v) for k, v in splits.items()} == {
        "train": 166, "validation": 42, "test": 52
    }  # fmt: skip

    def subjects(name):  # volumes 2k - 1 and 2k are of one subject
        return {(int(case.split("_")[1]) + 1) // 2 for case in splits[name]}

    assert not subjects("train") & subjects("validation")
    assert not (subjects("train") | subjects("validation")) & subjects("test")
