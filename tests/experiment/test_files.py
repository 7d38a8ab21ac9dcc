"""The experiment's overlays, splits and weights fit the bundles."""

import json

import pytest
import torch
from monai.bundle import ConfigParser

from ..bundles.conftest import BUNDLES, config, run
from .conftest import EXPERIMENT, overlays

BRAIN = BUNDLES["brain_tumor_mri_segmentation"]


def test_the_weights_of_the_papers_split_are_a_plain_state_dict_of_the_shipped_network():
    network = run("inference.json", run=False).network_def
    state = torch.load(EXPERIMENT / "weights/model_paper_split.pt", weights_only=True)
    network.load_state_dict(state, strict=True)


def test_the_tumour_training_setup_is_the_authors():
    """../shared/paper/reference.md, "Training, exactly"; whole volumes go through the network at once."""
    files = overlays("brain_tumor", ["paper_network", "rare_unet_paper"])
    parser = ConfigParser()
    parser.read_config([str(BRAIN / "configs/train.json"), *map(str, files)])
    setup = {"batch_size": 2, "learning_rate": 3e-4, "max_grad_norm": 1.0, "max_epochs": 80, "downsample": "trilinear"}
    assert {key: parser[key] for key in setup} == setup
    assert parser["optimizer"]["weight_decay"] == 3e-5 and parser["loss"]["alpha"] == 0.35
    assert (parser["lr_scheduler"]["patience"], parser["lr_scheduler"]["factor"]) == (10, 0.5)
    assert parser["routing#window"] is None and not parser["routing#crop_foreground"]


def test_the_papers_splits_share_no_subject_and_leave_our_test_volumes_alone():
    splits = json.loads((EXPERIMENT / "hippocampus/splits_paper.json").read_text())
    assert splits.pop("validation") == config("splits.json")["validation"]  # what a training validates on
    assert {k: len(v) for k, v in splits.items()} == {"paper_train": 148, "paper_test": 52, "paper_compared": 43}
    train, test = (
        {(int(case.split("_")[1]) + 1) // 2 for case in splits[f"paper_{name}"]} for name in ("train", "test")
    )
    assert not train & test
    assert set(splits["paper_compared"]) == set(splits["paper_test"]) - set(config("splits.json")["test"])


@pytest.mark.parametrize(("name", "train"), [("brain_tumor_2mm", "train_12"), ("brain_tumor_22", "train")])
def test_the_folds_of_the_tumour_cases_are_their_parts(name, train):
    splits = config("splits.json", BRAIN)
    cases = [case for part in (train, "validation") for case in splits[part]]
    folds = json.loads((EXPERIMENT / name / "folds.json").read_text())
    assert sorted(case for i in range(4) for case in folds[f"fold_{i}"]) == sorted(cases)
    for i in range(4):
        assert set(folds[f"fold_{i}_train"]) == set(cases) - set(folds[f"fold_{i}"])


def test_the_first_fold_has_the_cases_on_which_the_training_was_chosen():
    chosen = set(config("splits.json", BRAIN)["validation"])
    for name in ("brain_tumor_2mm", "brain_tumor_22"):
        assert chosen <= set(json.loads((EXPERIMENT / name / "folds.json").read_text())["fold_0"])
