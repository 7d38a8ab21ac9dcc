"""The tumours' baselines, run for real on heads of a few thousand voxels."""

import nibabel as nib
import numpy as np
import pytest

from ..bundles.conftest import EVALUATE, read
from ..bundles.test_brain_tumor import BUNDLE, run
from .conftest import PROTOCOL, overlays, script

TASK = "brain_tumor"
NARROW = {"network_def#channels": [2, 4, 4, 4, 4, 4]}  # and the channels of the heads as they are


# name: configs beside train.json, options of training, configs beside evaluate.json, options of evaluating
BASELINES = {
    "unet": (["unet"], {}, ["unet"], {}),
    "unet_pad": (["unet"], {}, ["unet", "pad"], {}),
    "unet_aug": (["unet", "unet_aug"], {}, ["unet"], {}),
    "unet_aug_full": (["unet", "unet_aug"], {"augment_labels": "full"}, ["unet"], {}),
    "single_scale": (["single_scale"], {"scale_level": 2}, ["single_scale"], {"scale_level": 2}),
    "rare_unet_paper": (
        ["paper_network", "rare_unet_paper"], {"levels#spatial_size": [64, 64, 64]},
        ["paper_network"], {"crop": [64, 64, 64], "downsample": "trilinear"},
    ),
}  # fmt: skip
# Their configs differ from those of another baseline by what that of the hippocampus has too, which is always tested.
LONG = ("unet_pad", "unet_aug", "unet_aug_full", "rare_unet_paper")
CASES = [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in BASELINES]


@pytest.mark.parametrize("name", CASES)
def test_every_baseline_trains_and_is_evaluated_with_two_commands(heads, tmp_path, name):
    train, train_options, evaluate, options = BASELINES[name]
    paths = dict(dataset_dir=str(heads), splits_file=str(heads / "splits.json"), output_dir=str(tmp_path), **NARROW)
    short = dict(max_epochs=1, val_interval=1, workflow_type="train")
    patch = {} if name == "rare_unet_paper" else {"patch_size": [64, 32, 32]}
    run("train.json", *overlays(TASK, train), **short, **patch, **paths, **train_options)
    files = [PROTOCOL, *overlays(TASK, evaluate)]
    run(*EVALUATE, *files, checkpoint=str(tmp_path / "model.pt"), **paths, **options)
    scales = {"0.25"} if name == "single_scale" else {"1", "0.5", "0.25", "0.125"}
    rows = read(tmp_path / "metrics" / "per_case.csv")
    assert {r["scale"] for r in rows} == scales and len(rows) == 2 * len(scales) * 3 * 6


def test_at_2_mm_as_in_the_cross_validation(heads, tmp_path, monkeypatch):
    """The script makes the dataset, the overlay goes before the baseline's."""
    for case in "abcd":
        files = [heads / folder / f"{case}.nii.gz" for folder in ("imagesTr", "labelsTr")]
        script("coarsen_dataset").coarsen_case(*files, 1, tmp_path / "data")
    fine, coarse = (nib.load(root / "labelsTr" / "a.nii.gz") for root in (heads, tmp_path / "data"))
    assert coarse.header.get_zooms() == (2, 2, 2)
    assert 0.8 < 8 * np.count_nonzero(coarse.dataobj) / np.count_nonzero(fine.dataobj) < 1.2
    assert nib.load(tmp_path / "data" / "imagesTr" / "a.nii.gz").shape == (*coarse.shape, 4)
    paths = dict(dataset_dir=str(tmp_path / "data"), splits_file=str(heads / "splits.json"))
    small = {"network_def#channels": [2, 4, 4, 4, 4]}
    short = dict(max_epochs=1, val_interval=1, workflow_type="train", patch_size=[32, 16, 16])
    acquired = ["acquisitions", "two_mm", "two_mm_acquisitions"]
    for name, training, evaluating in (
        ("ours", ["two_mm"], []),
        ("baseline", ["two_mm", "unet", "unet_aug"], ["unet"]),
        ("ours_acquired", acquired, []),
        ("baseline_acquired", [*acquired, "unet", "unet_acquisitions"], ["unet"]),
    ):
        output = tmp_path / name
        more = {"acquisition_prob": 1} if "acquired" in name else {}
        run("train.json", *overlays(TASK, training), output_dir=str(output), **short, **paths, **small, **more)
        weights = dict(checkpoint=str(output / "model.pt"), output_dir=str(output))
        files = overlays(TASK, ["two_mm", *evaluating])
        run(*EVALUATE, PROTOCOL, *files, **weights, **paths, **small)
        rows = read(output / "metrics" / "per_case.csv")
        assert {r["scale"] for r in rows} == {"1", "0.5", "0.25"} and len(rows) == 2 * 3 * 3 * 6


def test_the_authors_network_has_their_parameters_on_each_path():
    """Counts of the published implementation (../shared/paper/reference.md)."""
    network = run("inference.json", *overlays(TASK, ["paper_network"]), run=False, input=str(BUNDLE / "configs"))
    net = network.parser.get_parsed_content("network_def")
    counts = []
    for level in range(4):
        parts = [*net.encoder[level + 1 :], *net.upsamples[: 5 - level], *net.decoder[: 5 - level], net.heads[level]]
        parts.append(net.encoder[0] if level == 0 else net.gateways[level - 1])
        counts.append(sum(p.numel() for part in parts for p in part.parameters()))
    assert counts == [30_398_660, 30_429_956, 30_326_276, 29_897_732]
