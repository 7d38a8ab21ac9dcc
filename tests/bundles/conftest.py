"""A tiny dataset in the Decathlon's layout, and ways to run a bundle in this process and as a command."""

import csv
import json
import os
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from . import processes

REPOSITORY = Path(__file__).parents[2]
BUNDLES = {p.name: p for p in sorted((REPOSITORY / "bundles").iterdir()) if p.is_dir()}
BUNDLE = BUNDLES["hippocampus_mri_segmentation"]
CONFIGS = BUNDLE / "configs"
SAMPLE = BUNDLE / "sample"
SHARED = REPOSITORY.parent / "shared" / "data"
DATA, BRAIN_DATA = SHARED / "Task04_Hippocampus", SHARED / "Task01_BrainTumour"
# Evaluating is an overlay on inferring: files of ``run``, and of a command.
EVALUATE = ("inference.json", "evaluate.json")
EVALUATING = str([f"{CONFIGS}/{name}" for name in EVALUATE]).replace(" ", "")
# Small enough to train in seconds, with the depth of the real network.
SMALL = {"network_def#channels": [2, 4, 4, 4, 4], "network_def#fine_channels": [4, 4, 4]}


def needs(folder):
    """Marks tests of real data, which are skipped with their reason where they are absent."""

    def mark(test):
        absent = pytest.mark.skipif(not folder.is_dir(), reason=f"the full dataset is not in {folder}")
        return pytest.mark.data(absent(test))

    return mark


needs_data, needs_brain_data = needs(DATA), needs(BRAIN_DATA)


def read(path):
    """Rows of a CSV file."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def config(name, bundle=BUNDLE):
    """A config file of a bundle as it stands there."""
    return json.loads((bundle / "configs" / name).read_text())


def run(*files, workflow_type="infer", run=True, bundle=BUNDLE, **overrides):
    """Runs configs of a bundle in this process; returns the workflow."""
    eager = {"runtime": "eager"} if files == ("inference.json",) else {}  # also where OpenVINO is installed
    overrides = {"bundle_root": str(bundle), **eager, **overrides}
    files = [str(bundle / "configs" / name) for name in files]
    workflow = ConfigWorkflow(files, workflow_type=workflow_type, logging_file=False, **overrides)
    workflow.initialize()
    if run:
        workflow.run()
    return workflow


def command(run_id, file, *options, launcher=(), start=False, variables=None, cwd="/", **overrides):
    """The command of the documentation, from another folder; returns the process, finished unless ``start``."""
    if run_id == "inferring" and "--runtime" not in options:
        overrides = {"runtime": "eager", **overrides}
    words = [sys.executable, "-m", *launcher, "monai.bundle", "run", run_id, "--config_file", str(file)]
    words += [word for key, value in overrides.items() for word in (f"--{key}", str(value))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **(variables or {})}
    process = processes.start([*words, *map(str, options)], str(cwd), environment)
    return process if start else processes.finish(process)


def untrained(path, bundle=BUNDLE, small=SMALL):
    """Stores weights of a bundle's network, made small, as they are before a training; returns the path."""
    parser = ConfigParser(config("inference.json", bundle))
    parser.update(small)
    torch.manual_seed(0)
    torch.save(parser.get_parsed_content("network_def").state_dict(), path)
    return str(path)


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory):
    """Weights of the small network, untrained."""
    return untrained(tmp_path_factory.mktemp("weights") / "model.pt")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Four cases of a bright blob in two halves, two to train and two to validate, and their splits.json."""
    root = tmp_path_factory.mktemp("tiny")
    random = np.random.default_rng(0)
    cases = {"train": ["a", "b"], "validation": ["c", "d"], "test": []}
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir()
    for case in "abcd":
        size = random.integers(20, 30, 3)
        label = np.zeros(size, np.uint8)
        label[6:14, 5:10, 6:14] = 1
        label[6:14, 10:16, 6:14] = 2
        image = 100 * (label > 0) + 20 * random.random(size)
        nib.save(nib.Nifti1Image(image.astype(np.float32), np.eye(4)), root / "imagesTr" / f"{case}.nii.gz")
        nib.save(nib.Nifti1Image(label, np.eye(4)), root / "labelsTr" / f"{case}.nii.gz")
    (root / "splits.json").write_text(json.dumps(cases))
    return root


@pytest.fixture(scope="session")
def trained(tiny, tmp_path_factory):
    """A small network after two epochs of one iteration each."""
    output = tmp_path_factory.mktemp("trained")
    paths = dict(dataset_dir=str(tiny), splits_file=str(tiny / "splits.json"), output_dir=str(output))
    workflow = run("train.json", workflow_type="train", max_epochs=2, **paths, **SMALL)
    return workflow, output
