"""Training on random acquisitions and evaluating any of them, run for real on tiny data."""

import json
import math

import nibabel as nib
import numpy as np
import pytest
import torch

from ..bundles.conftest import EVALUATE, SMALL, read, run
from .conftest import OVERLAYS, overlays

FILES = ["train.json", "finetune.json", *overlays("hippocampus", ["acquisitions"])]


@pytest.fixture
def paths(tiny, tmp_path):
    return dict(dataset_dir=str(tiny), splits_file=str(tiny / "splits.json"), output_dir=str(tmp_path))


def test_training_goes_on_with_random_acquisitions_and_pyramids(tiny, trained, paths, tmp_path):
    weights = str(trained[1] / "model.pt")
    for prob in (0, 1):
        options = dict(checkpoint=weights, max_epochs=2, val_interval=2, acquisition_prob=prob, batch_size=1)
        output = str(tmp_path / str(prob))
        workflow = run(*FILES, workflow_type="train", **{**paths, "output_dir": output}, **options, **SMALL)
        found = workflow.parser.get_parsed_content("network_def").state_dict()
        given = torch.load(weights, weights_only=True)
        assert any(not torch.equal(found[name], given[name]) for name in given)
        assert all(torch.isfinite(tensor).all() for tensor in found.values())
        assert (tmp_path / str(prob) / "finetuned.pt").exists()


def test_the_coarse_levels_are_trained_alone(tiny, trained, paths):
    weights = str(trained[1] / "model.pt")
    coarse = [*FILES, *overlays("hippocampus", ["coarse_levels"])]
    workflow = run(*coarse, workflow_type="train", **paths, checkpoint=weights, max_epochs=2, val_interval=2, **SMALL)
    parts = tuple(workflow.parser.get_parsed_content("trained_parts"))
    found = workflow.parser.get_parsed_content("network_def").state_dict()
    given = torch.load(weights, weights_only=True)
    changed = [name for name in given if not torch.equal(found[name], given[name])]
    assert changed and all(name.startswith(parts) for name in changed)


def test_boxes_of_heads_and_a_unet_are_trained_on_acquisitions(tiny, trained, paths, tmp_path):
    options = dict(max_epochs=1, val_interval=1, acquisition_prob=1, batch_size=2, **paths, **SMALL)
    heads = [*FILES, *overlays("hippocampus", ["heads"])]
    options["checkpoint"] = str(trained[1] / "model.pt")
    workflow = run(*heads, workflow_type="train", heads_dir=str(tiny), head_repeats=3, **options)
    assert len(workflow.parser.get_parsed_content("train#dataset#data")) == 4 * len(
        workflow.parser.get_parsed_content("train_data")
    )
    del options["checkpoint"]
    unet = ["train.json", *overlays("hippocampus", ["unet", "acquisitions", "unet_acquisitions"])]
    run(*unet, workflow_type="train", **options)
    assert (tmp_path / "model.pt").exists() and (tmp_path / "finetuned.pt").exists()


def test_every_scan_enters_the_level_that_is_asked_for(trained, paths, tmp_path):
    options = dict(checkpoint=str(trained[1] / "model.pt"), acquisitions=[1, 2], **paths, **SMALL)
    run(*EVALUATE, OVERLAYS / "acquisitions.json", OVERLAYS / "fixed_level.json", fixed_level=1, **options)
    assert {r["level"] for r in read(tmp_path / "metrics" / "per_case.csv")} == {"1"}


def test_any_list_of_spacings_is_evaluated(trained, paths, tmp_path):
    (tmp_path / "list.json").write_text(json.dumps([2, [1, 1, 5], {"spacing": [1, 1, 5], "profile": "box"}]))
    options = dict(checkpoint=str(trained[1] / "model.pt"), acquisitions=str(tmp_path / "list.json"), **paths, **SMALL)
    for rule, thick_level in (("finest", "0"), ("volume", "1")):
        run(*EVALUATE, OVERLAYS / "acquisitions.json", **{"levels#rule": rule}, **options)
        rows = read(tmp_path / "metrics" / "per_case.csv")
        assert len(rows) == 2 * 3 * 2 * 2  # cases, acquisitions, grids, classes
        assert {(r["spacing"], r["profile"], r["level"]) for r in rows} == {
            ("2x2x2", "gaussian", "1"), ("1x1x5", "gaussian", thick_level), ("1x1x5", "box", thick_level)
        }  # fmt: skip
        assert all(not math.isnan(float(r["dice"])) for r in rows if r["grid"] == "full")


@pytest.fixture
def divisible(tiny, tmp_path):
    """The tiny dataset at sizes that divide: the four-scale protocol pads others, an acquisition does not."""
    root = tmp_path / "divisible"
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
        for path in (tiny / folder).iterdir():
            scan = nib.load(path)
            part = scan.get_fdata()[:16, :16, :16].astype(np.float32)
            nib.save(nib.Nifti1Image(part, scan.affine), root / folder / path.name)
    return root


def test_block_means_are_scored_as_the_scales_are(divisible, trained, paths, tmp_path):
    options = dict(checkpoint=str(trained[1] / "model.pt"), split="train", side="left", **paths, **SMALL)
    options["dataset_dir"] = str(divisible)
    run(*EVALUATE, val_levels=[0, 1, 2], **options)
    scales = {(r["case"], float(r["scale"]), r["grid"], r["class"]): r for r in read(tmp_path / "metrics/per_case.csv")}
    boxes = [{"spacing": 2**level, "profile": "box"} for level in (0, 1, 2)]
    run(*EVALUATE, OVERLAYS / "acquisitions.json", acquisitions=boxes, **options)
    rows = read(tmp_path / "metrics" / "per_case.csv")
    assert len(rows) == len(scales) == 2 * 3 * 2 * 2
    for r in rows:
        same = scales[r["case"], 1 / float(r["spacing"].split("x")[0]), r["grid"], r["class"]]
        assert (r["dice"], r["volume_error"]) == (same["dice"], same["volume_error"])
