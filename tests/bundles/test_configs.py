"""The bundles' files agree with each other. What MONAI expects of a bundle: tools/verify_bundle and its test."""

import pytest

import rare_unet_networks

from .conftest import BUNDLES, config, run

HIPPOCAMPUS, BRAIN = BUNDLES["hippocampus_mri_segmentation"], BUNDLES["brain_tumor_mri_segmentation"]
COMPLETE = ("train.json", "inference.json", "evaluate.json")
# What stands in several files, because each of them has to work alone.
SHARED = ["bundle_root", "device", "class_names", "scaling", "levels", "network_def"]
SHARED_IF_THERE = ["modalities", "allow_missing"]
SHARED_INFERENCE = [
    "checkpoint",
    "runtime",
    "export_dir",
    "network",
    "num_workers",
    "dataset",
    "dataloader",
    "inferer",
    "finalize",
]
LOADING = ("LoadImaged", "rare_unet_networks.transforms.LoadModalitiesd")
SCALING = ("ScaleIntensityRangePercentilesd", "NormalizeIntensityd")


@pytest.fixture(params=BUNDLES.values(), ids=list(BUNDLES))
def bundle(request):
    return request.param


def transforms(items, config):
    """What is done to images, without the keys, which differ where a file has labels beside them."""
    items = [config[t[1:]] if isinstance(t, str) else t for t in items]
    names = (*LOADING, "rare_unet_networks.transforms.CheckScand", "Orientationd", *SCALING)
    of_images = [t for t in items if t["_target_"] in names and t["keys"] != "label"]
    return [{k: v for k, v in t.items() if k != "keys"} for t in of_images]


def test_what_stands_in_several_files_is_equal(bundle):
    train, inference, evaluate = (config(name, bundle) for name in COMPLETE)
    for key in [*SHARED, *(key for key in SHARED_IF_THERE if key in inference)]:
        assert train[key] == inference[key] == evaluate[key], key
    for key in SHARED_INFERENCE:
        assert inference[key] == evaluate[key], key


def test_training_loads_checks_and_turns_scans_as_inference_does_and_scales_them_alike(bundle):
    train, inference = (config(name, bundle) for name in ("train.json", "inference.json"))
    expected = transforms(inference["preprocessing"]["transforms"], inference)
    assert [t["_target_"] in (*LOADING, *SCALING) for t in expected] == [True, False, False, True]
    assert transforms(train["train"]["deterministic_transforms"], train)[:3] == expected[:3]
    # The pyramid of a training step is scaled level by level, as scans of these resolutions are; a patch by the whole
    # scan's statistics, which gives an uncut scan the same (tests/test_standardization.py).
    *_, last = train["train"]["random_transforms"]
    if last["_target_"] == "rare_unet_networks.transforms.StandardizeForegroundd":
        assert expected[-1] == {"_target_": "NormalizeIntensityd", "nonzero": True, "channel_wise": True}
        assert last["levels"] == "@train_levels"
    else:
        assert transforms([last], train) == expected[-1:]


ALIKE = ["export", "finetune", "monai_label", "multi_gpu_train", "multi_gpu_inference", "tracking_wandb"]


@pytest.mark.parametrize("name", ALIKE)
def test_what_is_no_tasks_own_is_the_same_in_both_bundles(name):
    """A bundle has to stand alone, so each has its copy."""
    assert config(f"{name}.json", HIPPOCAMPUS) == config(f"{name}.json", BRAIN)


def test_answers_are_made_the_same_way_everywhere(bundle):
    train, inference, evaluate = (config(name, bundle) for name in COMPLETE)

    def first_three(config):
        both, invert, discrete = (config.get("to_labels") or config["postprocessing"]["transforms"])[:3]
        return both, {**invert, "transform": None}, discrete

    assert first_three(evaluate) == first_three(inference) == first_three(train["validate"])
    assert train["inferer"] == inference["inferer"] and train["validate"]["inferer"] == "@inferer"
    validation, evaluation = train["validate"]["key_metric"]["val_mean_dice"], evaluate["key_metric"]["mean_dice"]
    assert {**validation, "distances": evaluation["distances"]} == evaluation


@pytest.mark.parametrize("output, name", [("native", "a_seg.nii.gz"), ("full", "a_full_seg.nii.gz")])
def test_a_clash_of_two_scans_names_the_file_that_both_would_write(bundle, tmp_path, output, name):
    for suffix in (".nii", ".nii.gz"):
        (tmp_path / f"a{suffix}").touch()
    parser = run("inference.json", run=False, bundle=bundle, input=str(tmp_path), output=output).parser
    scans = parser.get_parsed_content("scans")
    assert [scan["failure"] for scan in scans] == [f"another scan would write {name} as well"] * 2
    assert name == f"a_{parser.get_parsed_content('postprocessing').transforms[-1].saver.folder_layout.postfix}.nii.gz"


def test_metadata_says_what_the_configs_do(bundle):
    metadata, inference = config("metadata.json", bundle), config("inference.json", bundle)
    io = metadata["network_data_format"]
    assert io["inputs"]["image"]["spatial_shape"] == inference["levels"]["spatial_size"]
    assert list(io["outputs"]["pred"]["channel_def"].values()) == ["background", *inference["class_names"]]
    if "modalities" in inference:
        assert list(io["inputs"]["image"]["channel_def"].values()) == list(inference["modalities"])


def test_levels_fit_the_network(bundle):
    workflow = run("inference.json", run=False, bundle=bundle)
    network, levels = (workflow.parser.get_parsed_content(key) for key in ("network_def", "levels"))
    assert (levels.num_levels, levels.num_stages) == (network.num_levels, network.num_stages)


def test_the_splits_of_the_tumour_cases_share_no_case():
    splits = config("splits.json", BRAIN)
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [12, 4, 0]
    cases = splits["train"] + splits["validation"]
    assert len(set(cases)) == 16
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

    def subjects(name):  # volumes 2k - 1 and 2k are one person's
        return {(int(case.split("_")[1]) + 1) // 2 for case in splits[name]}

    assert not subjects("train") & subjects("validation")
    assert not (subjects("train") | subjects("validation")) & subjects("test")
