"""docs/new_task.md holds what it promises: a third task is a folder of configs."""

import difflib
import json
import re
import shutil

import nibabel as nib
import numpy as np
import pytest

from .conftest import REPOSITORY, read
from .documents import blocks, run_script

SOURCE = REPOSITORY / "bundles" / "brain_tumor_mri_segmentation"
SPACING = 0.5


def values(name):
    text = (REPOSITORY / "docs" / "new_task.md").read_text()
    return json.loads(re.search(rf"<!-- values: {name} -->\n```json\n(.*?)```", text, re.DOTALL)[1])


# What the document changes in each config.
CHANGES = {
    "inference": values("all"),
    "evaluate": {"regions": values("train")["regions"]},
    "train": {**values("all"), **values("train")},
}


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """The folder that the document has a reader make, and beside it a dataset of bright blobs in two channels."""
    root = tmp_path_factory.mktemp("task")
    bundle, data = root / "bundles" / "my_task", root / "my_dataset"
    shutil.copytree(SOURCE, bundle, ignore=shutil.ignore_patterns("models", "sample", "splits_task01.json"))
    for name, changes in CHANGES.items():
        content = json.loads((bundle / "configs" / f"{name}.json").read_text())
        for key, value in changes.items():
            *parents, last = key.split("#")
            entry = content
            for parent in parents:
                entry = entry[parent]
            assert last in entry, f"{key} of docs/new_task.md is no entry of {name}.json"
            entry[last] = value
        (bundle / "configs" / f"{name}.json").write_text(json.dumps(content, indent=4))
    random = np.random.default_rng(0)
    for folder in ("imagesTr", "labelsTr"):
        (data / folder).mkdir(parents=True)
    affine = np.diag([SPACING, SPACING, SPACING, 1])
    for case in "abc":
        label = np.zeros((36, 40, 33), np.uint8)
        label[8:24, 10:18, 8:24], label[8:24, 18:28, 8:24] = 1, 2
        image = np.stack([100 * (label == c) + 20 * random.random(label.shape) + 5 for c in (1, 2)], axis=-1)
        nib.save(nib.Nifti1Image(image.astype(np.float32), affine), data / "imagesTr" / f"{case}.nii.gz")
        nib.save(nib.Nifti1Image(label, affine), data / "labelsTr" / f"{case}.nii.gz")
    splits = {"train": ["a", "b"], "validation": ["c"], "test": []}
    (bundle / "configs" / "splits.json").write_text(json.dumps(splits))
    (root / "my_scans").symlink_to(data / "imagesTr")
    (root / "tools").symlink_to(REPOSITORY / "tools")
    return root


def test_a_third_task_changes_at_most_150_lines(task):
    """Counted with every entry of a list on a line of its own: more than in the configs as they are written."""
    count = 0
    for path in (task / "bundles" / "my_task" / "configs").glob("*.json"):
        before, after = (
            json.dumps(json.loads(p.read_text()), indent=4) for p in (SOURCE / "configs" / path.name, path)
        )
        changed = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
        count += sum(line.startswith("+") and not line.startswith("+++") for line in changed)
    assert 20 < count <= 150


def test_a_task_of_configs_alone_is_trained_evaluated_and_segments(task):
    """By the very commands of the document."""
    first, second = (text for _, text in blocks(REPOSITORY / "docs" / "new_task.md"))
    # sizes 36, 40, 33 of 0.5 mm are 18, 20, 16.5 of 1 mm
    assert "spatial_size: [16, 16, 16]" in run_script(first, task)
    run_script(second.replace("--config_file $C/train.json", "--config_file $C/train.json --max_epochs 2"), task)
    output = task / "runs" / "my_task"
    rows = read(output / "metrics" / "per_case.csv")
    assert {r["scale"] for r in rows} == {"1", "0.5", "0.25"}
    assert {r["class"] for r in rows} == {"liver", "lesion", "whole"}
    prediction = nib.load(output / "c_seg.nii.gz")
    assert prediction.shape == (36, 40, 33) and set(np.unique(prediction.dataobj)) <= {0, 1, 2}
