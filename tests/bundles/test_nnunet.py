"""Datasets in nnU-Net's layout are trained on and evaluated like the Decathlon's."""

import runpy
import sys
from dataclasses import replace

import numpy as np
import pytest

from . import test_brain_tumor as brain
from .conftest import EVALUATE, REPOSITORY, SMALL, read
from .conftest import run as run_hippocampus
from .test_brain_tumor import heads  # noqa: F401


def converted(monkeypatch, name, dataset, target):
    """The dataset in nnU-Net's layout, and its splits_final.json."""
    scripts = REPOSITORY / "docs/experiment/scripts"
    monkeypatch.setattr(sys, "path", [str(scripts), *sys.path])  # as when the script is run
    tool = runpy.run_path(str(scripts / "nnunet.py"))
    tool["convert"](replace(tool["TASKS"][name], splits=dataset / "splits.json"), dataset, target)
    return dict(dataset_dir=str(target), splits_file=str(target / "splits_final.json"))


@pytest.mark.parametrize("name", ["hippocampus", pytest.param("brain_tumor", marks=pytest.mark.slow)])
def test_training_and_evaluating_see_what_they_see_in_the_decathlons_layout(name, tiny, heads, tmp_path, monkeypatch):  # noqa: F811
    if name == "hippocampus":
        run, dataset, small = run_hippocampus, tiny, SMALL
    else:
        run, dataset, small = brain.run, heads, {**brain.SMALL, "patch_size": [64, 32, 32]}
    layouts = [
        dict(dataset_dir=str(dataset), splits_file=str(dataset / "splits.json")),
        converted(monkeypatch, name, dataset, tmp_path / "raw"),
    ]
    names = {p.name for p in (tmp_path / "raw" / "imagesTr").iterdir()}
    assert {"a_0000.nii.gz", "d_0000.nii.gz"} <= names and "a.nii.gz" not in names
    scores, states = [], []
    for i, paths in enumerate(layouts):
        output = tmp_path / str(i)
        short = dict(max_epochs=1, val_interval=1, workflow_type="train", output_dir=str(output))
        workflow = run("train.json", **short, **paths, **small)
        states.append(workflow.parser.get_parsed_content("network_def").state_dict())
        architecture = {key: value for key, value in small.items() if key != "patch_size"}
        weights = dict(checkpoint=str(tmp_path / "0" / "model.pt"), output_dir=str(output))
        run(*EVALUATE, **weights, **paths, **architecture)
        scores.append(read(output / "metrics" / "per_case.csv"))
    assert scores[1] == scores[0] and {row["case"] for row in scores[0]} == {"c", "d"}
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(*(state.values() for state in states)))
