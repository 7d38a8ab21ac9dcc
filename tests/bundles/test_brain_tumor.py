"""The brain-tumour bundle, run for real on heads of a few thousand voxels."""

import json
import re

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose, CropForeground

from rare_unet_networks.networks import StackedConvBlocks
from rare_unet_networks.transforms import skull

from .conftest import BUNDLES, EVALUATE, command, config, read
from .conftest import run as run_of

BUNDLE = BUNDLES["brain_tumor_mri_segmentation"]
CONFIGS = BUNDLE / "configs"
SMALL = {"network_def#channels": [2, 4, 4, 4, 4, 4], "network_def#fine_channels": [4, 4, 4]}
MODALITIES = ("flair", "t1", "t1ce", "t2")
LPS = np.diag([-1.0, -1, 1, 1])


def head(random, size):
    """A ball of noise with three nested tumour classes in four channels, zero around, and its label."""
    grid = np.stack(np.meshgrid(*(np.arange(n) - n / 2 for n in size), indexing="ij"))
    radius = np.sqrt((grid**2).sum(axis=0))
    tumour = np.sqrt(((grid - 4) ** 2).sum(axis=0))
    label = np.select([tumour < 3, tumour < 5, tumour < 7], [3, 2, 1]).astype(np.uint8)
    brain = radius < min(size) / 2 - 2
    label[~brain] = 0
    image = np.stack([(50 + 20 * c + 30 * (label > c) + 5 * random.random(size)) * brain for c in range(4)], axis=-1)
    return image.astype(np.float32), label


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """Two cases to train and two to validate, in the Decathlon's layout."""
    root = tmp_path_factory.mktemp("heads")
    random = np.random.default_rng(0)
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir()
    for case in "abcd":
        image, label = head(random, random.integers(36, 44, 3))
        nib.save(nib.Nifti1Image(image, LPS), root / "imagesTr" / f"{case}.nii.gz")
        nib.save(nib.Nifti1Image(label, LPS), root / "labelsTr" / f"{case}.nii.gz")
    (root / "splits.json").write_text(json.dumps({"train": ["a", "b"], "validation": ["c", "d"], "test": []}))
    return root


def run(*files, **kwargs):
    return run_of(*files, bundle=BUNDLE, **kwargs)


@pytest.fixture(scope="module")
def trained(heads, tmp_path_factory):
    output = tmp_path_factory.mktemp("trained")
    paths = dict(dataset_dir=str(heads), splits_file=str(heads / "splits.json"), output_dir=str(output))
    patch = dict(patch_size=[64, 32, 32], max_epochs=2, val_interval=1)
    return run("train.json", workflow_type="train", **patch, **paths, **SMALL), output


def test_training_evaluating_and_inferring(heads, trained, tmp_path):
    workflow, output = trained
    assert workflow.parser.get_parsed_content("train#trainer").state.iteration == 4
    weights = dict(checkpoint=str(output / "model.pt"), output_dir=str(tmp_path), **SMALL)
    run(*EVALUATE, dataset_dir=str(heads), splits_file=str(heads / "splits.json"), **weights)
    rows = read(tmp_path / "metrics" / "per_case.csv")
    assert len(rows) == 2 * 4 * 2 * 6  # cases, scales, grids, classes and regions
    run("inference.json", input=str(heads / "imagesTr"), **weights)
    assert len(read(tmp_path / "volumes.csv")) == 4 * 3
    record = json.loads((tmp_path / "a_seg.json").read_text())
    assert set(record["agreement"]["classes"]) == {"edema", "non_enhancing", "enhancing"}
    assert "expected_dice" not in record  # four validation cases are too few to fit a model
    for case in "abcd":
        prediction, scan = (
            nib.load(p) for p in (tmp_path / f"{case}_seg.nii.gz", heads / "imagesTr" / f"{case}.nii.gz")
        )
        assert prediction.shape == scan.shape[:3] and np.allclose(prediction.affine, scan.affine)


def test_calibrating_finds_limits_of_the_inferer_that_inference_uses(heads, trained, tmp_path):
    """Heads are calibrated one path at a time, the doubt is that of the mean over the levels."""
    _, output = trained
    paths = dict(dataset_dir=str(heads), splits_file=str(heads / "splits.json"), output_dir=str(tmp_path / "out"))
    files = dict(checkpoint=str(output / "model.pt"), calibrated_file=str(tmp_path / "model.pt"))
    workflow = run(*EVALUATE, "calibrate.json", offsets=[0.0, 0.5], **files, **paths, **SMALL)
    assert workflow.parser.get_parsed_content("evaluator").inferer.extra_levels == 3
    limits = json.loads((tmp_path / "doubt_limit.json").read_text())["doubt_limit"]
    assert len(limits) == 4 and all(limit > 0 for limit in limits)
    assert (tmp_path / "model.pt").exists()


def test_a_step_sees_scans_as_inference_does(heads, tmp_path):
    """Without chance and cropping, the images of a pyramid are what validation makes of the case at those levels."""
    transforms = config("train.json", BUNDLE)["train"]["random_transforms"]
    probs = {f"train#random_transforms#{i}#prob": 0.0 for i, t in enumerate(transforms) if "prob" in t}
    paths = dict(dataset_dir=str(heads), splits_file=str(heads / "splits.json"), output_dir=str(tmp_path))
    workflow = run("train.json", workflow_type="train", run=False, patch_size=[-1, -1, -1], **probs, **paths, **SMALL)
    content = workflow.parser.get_parsed_content
    steps = content("train#deterministic_transforms") + content("train#random_transforms")
    item = content("train_data")[0]
    (pyramid,) = Compose(steps)(item)
    for level in range(4):
        scan = content("validate#preprocessing")({**item, "level": level})["image"]
        box = CropForeground(select_fn=lambda x: x != 0, allow_smaller=False)
        whole, cut = (box(image).as_tensor() for image in (scan, pyramid[f"image_{level}"]))
        if level == 0:
            torch.testing.assert_close(cut, whole, atol=1e-4, rtol=1e-4)
        # The cut scan's blocks lie elsewhere than the whole one's, so above level 0 only their distributions agree.
        for channel, expected in zip(cut, whole):
            voxels, like = channel[channel != 0], expected[expected != 0]
            assert [float(voxels.mean()), float(voxels.std())] == pytest.approx([0, float(like.std())], abs=0.1)


def test_several_patches_of_unequal_size_are_one_batch_and_checkpointing_reaches_the_network(heads, tmp_path):
    paths = dict(dataset_dir=str(heads), splits_file=str(heads / "splits.json"), output_dir=str(tmp_path))
    options = dict(patch_size=[-1, -1, -1], batch_size=2, max_epochs=1)
    workflow = run(
        "train.json", workflow_type="train", **options, **paths, **SMALL, **{"network_def#use_checkpoint": True}
    )
    network = workflow.parser.get_parsed_content("network")
    assert all(m.use_checkpoint for m in network.modules() if isinstance(m, StackedConvBlocks))
    assert workflow.parser.get_parsed_content("train#trainer").state.iteration == 1
    assert (tmp_path / "model.pt").exists()  # validated once, though val_interval is longer than the training


def test_finetuning_keeps_its_best_weights(heads, trained, tmp_path):
    _, output = trained
    paths = dict(dataset_dir=str(heads), splits_file=str(heads / "splits.json"), output_dir=str(tmp_path))
    options = dict(
        patch_size=[64, 32, 32], max_epochs=6, checkpoint=str(output / "model.pt"), start_level_probs=[0, 0, 1]
    )
    run("train.json", "finetune.json", workflow_type="train", **options, **paths, **SMALL)
    assert (tmp_path / "finetuned.pt").exists()


def write_files(folder, image, affine=LPS, t2=None):
    """One file per modality in BraTS's names; ``t2`` replaces the T2w's (data, affine)."""
    folder.mkdir(parents=True)
    for i, name in enumerate(MODALITIES):
        data, matrix = (image[..., i], affine) if name != "t2" or t2 is None else t2
        nib.save(nib.Nifti1Image(data, matrix), folder / f"{folder.name}_{name}.nii.gz")


def test_one_file_per_modality_gives_the_prediction_of_the_4d_file_and_bad_cases_fail_alone(heads, trained, tmp_path):
    _, output = trained
    image = nib.load(heads / "imagesTr" / "a.nii.gz").get_fdata(dtype=np.float32)
    scans = tmp_path / "scans"
    write_files(scans / "good", image)
    away = LPS.copy()
    away[0, 3] = 900
    write_files(scans / "away", image, t2=(image[..., 3], away))
    write_files(scans / "missing", image)
    (scans / "missing" / "missing_t1ce.nii.gz").unlink()
    nib.save(nib.Nifti1Image(image[..., 0], LPS), scans / "single.nii.gz")
    nib.save(nib.Nifti1Image(image, LPS), scans / "whole.nii.gz")
    options = {f"--{key}": str(value) for key, value in SMALL.items()}
    weights = dict(checkpoint=output / "model.pt", output_dir=tmp_path / "out")
    words = [word for pair in options.items() for word in pair]
    result = command("inferring", CONFIGS / "inference.json", *words, input=scans, **weights)
    assert result.returncode == 1
    for reason in (
        "away_t2.nii.gz and .*flair.nii.gz lie in different places",
        "missing/missing: no file of T1Gd",
        r"single.nii.gz: expected the channels FLAIR, T1w, T1Gd, T2w in one file, or .*, got 1 channel\(s\)",
    ):
        assert re.search(reason, result.stdout), reason
    good, whole = (np.asarray(nib.load(tmp_path / "out" / f"{n}_seg.nii.gz").dataobj) for n in ("good", "whole"))
    assert np.array_equal(good, whole)
    assert {p.name for p in (tmp_path / "out").glob("*_seg.nii.gz")} == {"good_seg.nii.gz", "whole_seg.nii.gz"}


def test_warnings_of_the_modalities_are_in_the_record_of_the_case(heads, trained, tmp_path):
    _, output = trained
    image = nib.load(heads / "imagesTr" / "a.nii.gz").get_fdata(dtype=np.float32)
    write_files(tmp_path / "scans" / "shifted", image, t2=(np.roll(image[..., 3], 6, axis=0), LPS))
    weights = dict(checkpoint=str(output / "model.pt"), output_dir=str(tmp_path / "out"))
    run("inference.json", input=str(tmp_path / "scans"), **weights, **SMALL)
    review = json.loads((tmp_path / "out" / "shifted_seg.json").read_text())["review"]
    assert any(text.startswith("T2w (shifted_t2.nii.gz) does not lie on the other modalities") for text in review)


@pytest.mark.parametrize("axes, flips", [((0, 1, 2), (0,)), ((2, 0, 1), (1, 2)), ((1, 2, 0), ())])
def test_axis_order_and_flips_do_not_change_the_prediction(heads, trained, tmp_path, axes, flips):
    _, output = trained
    scan = nib.load(heads / "imagesTr" / "a.nii.gz")
    turned = nib.as_closest_canonical(scan)
    orientation = np.array([[axes.index(i), -1 if i in flips else 1] for i in range(3)], dtype=float)
    turned = turned.as_reoriented(orientation)
    for name, image in (("scan", scan), ("turned", turned)):
        nib.save(image, tmp_path / f"{name}.nii.gz")
        run("inference.json", input=str(tmp_path / f"{name}.nii.gz"), checkpoint=str(output / "model.pt"),
            output_dir=str(tmp_path), **SMALL)  # fmt: skip
    predictions = [nib.as_closest_canonical(nib.load(tmp_path / f"{name}_seg.nii.gz")) for name in ("scan", "turned")]
    assert np.allclose(predictions[0].affine, predictions[1].affine)
    same = np.asarray(predictions[0].dataobj) == np.asarray(predictions[1].dataobj)
    assert same.mean() > 0.999 and np.asarray(predictions[0].dataobj).any()


def test_a_head_with_its_skull_gets_no_label_map_unless_forced_or_stripped(heads, trained, tmp_path, monkeypatch):
    """The ball has 1 to 2 l of voxels of 4 mm; filled with noise to its corners it is a head of 3 l or more."""
    _, output = trained
    image = nib.load(heads / "imagesTr" / "a.nii.gz").get_fdata(dtype=np.float32)
    (tmp_path / "scans").mkdir()
    affine = LPS * [[4], [4], [4], [1]]
    noise = 40 * np.random.default_rng(0).random(image.shape).astype(np.float32)
    nib.save(nib.Nifti1Image(image, affine), tmp_path / "scans" / "brain.nii.gz")
    nib.save(nib.Nifti1Image(np.where(image == 0, noise, image), affine), tmp_path / "scans" / "head.nii.gz")

    def infer(name, scans, **options):
        paths = dict(checkpoint=str(output / "model.pt"), input=str(scans), output_dir=str(tmp_path / name))
        workflow = run("inference.json", report="false", **paths, **options, **SMALL)
        assert not workflow.parser.get_parsed_content("evaluator").failures
        labels = {path.name for path in (tmp_path / name).glob("*_seg.nii.gz")}
        return json.loads((tmp_path / name / "head_seg.json").read_text()), labels

    record, labels = infer("refused", tmp_path / "scans")
    assert record["status"] == "not segmented" and labels == {"brain_seg.nii.gz"}
    head = tmp_path / "scans" / "head.nii.gz"
    record, labels = infer("forced", head, force="true")
    assert labels == {"head_seg.nii.gz"}
    reason = r"[3-5]\.\d l of the scan are not background, a brain has at most 2.3: "
    assert any(re.match(reason, text) for text in record["review"])
    monkeypatch.setattr(skull, "find_spec", lambda name: True)
    monkeypatch.setattr(skull, "version", lambda name: "1.0")
    monkeypatch.setattr(skull.SkullStripper, "mask", lambda self, channel, affine: channel > 45)
    record, _ = infer("stripped", head, skull_strip="true")
    assert re.fullmatch(r"removed, [12]\.\d\d l are left \(mask of T1w by deepbet 1.0\)", record["skull"])
    assert not any("not background" in reason for reason in record["review"])
    brain, stripped = (
        nib.load(tmp_path / n).get_fdata() for n in ("refused/brain_seg.nii.gz", "stripped/head_seg.nii.gz")
    )
    assert np.array_equal(brain, stripped)
