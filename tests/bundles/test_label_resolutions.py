"""Datasets whose labelled scans have different voxel sizes, trained on and evaluated for real."""

import json
import logging
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose

from rare_unet_networks.utils.errors import root_cause

from .conftest import BUNDLES, EVALUATE, SMALL, read, run

BRAIN = BUNDLES["brain_tumor_mri_segmentation"]


def coarsen(source, case, target, factors):
    """Writes a case with blocks of voxels as voxels: their mean, and the label of one in their middle."""
    for kind in ("imagesTr", "labelsTr"):
        scan = nib.load(source / kind / f"{case}.nii.gz")
        values = np.asarray(scan.dataobj)
        for axis, factor in enumerate(factors):
            blocks = np.moveaxis(values, axis, 0)[: values.shape[axis] // factor * factor]
            blocks = blocks.reshape(-1, factor, *blocks.shape[1:])
            blocks = blocks.mean(axis=1) if kind == "imagesTr" else blocks[:, factor // 2]
            values = np.moveaxis(blocks, 0, axis)
        affine = scan.affine @ np.diag([*factors, 1.0])
        values = values.astype(np.float32 if kind == "imagesTr" else np.uint8)
        nib.save(nib.Nifti1Image(values, affine), target / kind / f"{case}.nii.gz")


def make_mixed(source, target):
    """The cases a and c of 1 mm, b of 2 mm, d of 1×1×5 mm."""
    for kind in ("imagesTr", "labelsTr"):
        (target / kind).mkdir(parents=True)
        for case in "ac":
            shutil.copy(source / kind / f"{case}.nii.gz", target / kind)
    coarsen(source, "b", target, (2, 2, 2))
    coarsen(source, "d", target, (1, 1, 5))
    splits = {"train": list("abd"), "validation": list("bcd"), "test": []}
    (target / "splits.json").write_text(json.dumps(splits))
    return dict(dataset_dir=str(target), splits_file=str(target / "splits.json"))


def scores(folder, own_level):
    """Grids with a Dice by case and scale; ``own_level`` is that of the scan of 1×1×5 mm."""
    rows = read(folder / "metrics" / "per_case.csv")
    scales = {}
    for row in rows:
        scales.setdefault(row["case"], set()).add(row["scale"])
    assert scales == {"b": {"0.5", "0.25", "0.125"}, "c": {"1", "0.5", "0.25", "0.125"}, "d": {own_level}}
    assert {row["dice"] for row in rows if row["case"] in "bd" and row["grid"] == "full"} == {"nan"}
    assert "nan" not in {row["dice"] for row in rows if row["case"] == "c" and row["scale"] == "1"}


def test_a_mixed_dataset_trains_and_is_evaluated(tiny, tmp_path, caplog):
    paths = make_mixed(tiny, tmp_path / "mixed")
    output = tmp_path / "training"
    options = dict(max_epochs=1, batch_size=3, start_level_probs=[1.0], side="left", **paths, **SMALL)
    run("train.json", workflow_type="train", output_dir=str(output), **options)
    weights = torch.load(output / "model.pt", weights_only=True)
    assert all(torch.isfinite(value).all() for value in weights.values())
    caplog.set_level(logging.INFO)
    caplog.clear()
    evaluation = dict(checkpoint=str(output / "model.pt"), output_dir=str(tmp_path / "evaluation"), side="left")
    run(*EVALUATE, **evaluation, **paths, **SMALL)
    scores(tmp_path / "evaluation", "0.5")
    said = [message for message in caplog.messages if "labelled scans are not of" in message]
    assert len(said) == 1 and said[0].endswith("b (2×2×2), d (1×1×5)")


def test_other_voxel_sizes_can_still_be_refused(tiny, tmp_path):
    paths = dict(make_mixed(tiny, tmp_path / "mixed"), output_dir=str(tmp_path), label_spacing=[1, 1, 1])
    parser = run("train.json", workflow_type="train", run=False, **paths).parser
    item = parser.get_parsed_content("train_data")[1]
    with pytest.raises(RuntimeError) as error:
        Compose(parser.get_parsed_content("load"))(item)
    assert "b.nii.gz: a labelled scan must have voxels of 1×1×1 mm (to 10%)" in root_cause(error.value)


@pytest.mark.slow
def test_a_mixed_dataset_of_tumours_trains_and_is_evaluated(tmp_path):
    from .test_brain_tumor import LPS, head
    from .test_brain_tumor import SMALL as SMALL_BRAIN

    random = np.random.default_rng(0)
    source = tmp_path / "source"
    for kind in ("imagesTr", "labelsTr"):
        (source / kind).mkdir(parents=True)
    for case in "abcd":
        image, label = head(random, random.integers(36, 44, 3))
        nib.save(nib.Nifti1Image(image, LPS), source / "imagesTr" / f"{case}.nii.gz")
        nib.save(nib.Nifti1Image(label, LPS), source / "labelsTr" / f"{case}.nii.gz")
    paths = make_mixed(source, tmp_path / "mixed")
    output = tmp_path / "training"
    options = dict(max_epochs=1, val_interval=1, batch_size=3, patch_size=[64, 32, 32], start_level_probs=[1.0])
    run("train.json", workflow_type="train", bundle=BRAIN, output_dir=str(output), **options, **paths, **SMALL_BRAIN)
    evaluation = dict(checkpoint=str(output / "model.pt"), output_dir=str(tmp_path / "evaluation"))
    run(*EVALUATE, bundle=BRAIN, **evaluation, **paths, **SMALL_BRAIN)
    scores(tmp_path / "evaluation", "1")  # the finest axis decides
