"""The hippocampus's baselines and the paper's protocol, run for real on tiny data."""

import json
from pathlib import Path

import nibabel as nib
import pytest
import torch

from rare_unet_networks.baselines import DecoderHeadRAREUNet
from rare_unet_networks.inferers import MirrorInferer
from rare_unet_networks.metrics.summary import summarise

from ..bundles.conftest import CONFIGS, EVALUATE, SAMPLE, SMALL, command, read, run
from ..networks.test_rare_unet import leaves_run
from .conftest import EXPERIMENT, OVERLAYS, PROTOCOL, overlays

TASK = "hippocampus"
SUBJECT = SAMPLE / "Task04_Hippocampus"
CASE = SUBJECT / "imagesTr" / "hippocampus_067.nii.gz"


# overlays in training, options of training, overlays in evaluating after the protocol, options of evaluating
BASELINES = {
    "unet_up": (["unet"], {}, ["unet"], {}),
    "unet_pad": (["unet"], {}, ["unet", "pad"], {}),
    "unet_aug": (["unet", "unet_aug"], {}, ["unet"], {}),
    "unet_aug_pad": (["unet", "unet_aug", "pad"], {"augment_back": "pad"}, ["unet", "pad"], {}),
    "unet_aug_full": (["unet", "unet_aug"], {"augment_labels": "full"}, ["unet"], {}),
    "single_scale": (["single_scale"], {"scale_level": 2}, ["single_scale"], {"scale_level": 2}),
    "rare_unet_paper": (["paper_network", "rare_unet_paper"], {}, ["paper_network"], {}),
}


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_trains_and_is_evaluated_with_two_commands(tiny, tmp_path, name):
    train, train_options, evaluate, options = BASELINES[name]
    paths = dict(dataset_dir=str(tiny), splits_file=str(tiny / "splits.json"), output_dir=str(tmp_path), **SMALL)
    files = overlays(TASK, train)
    run("train.json", *files, workflow_type="train", max_epochs=1, **paths, **train_options)
    files = [PROTOCOL, *overlays(TASK, evaluate)]
    run(*EVALUATE, *files, checkpoint=str(tmp_path / "model.pt"), **paths, **options)
    rows = read(tmp_path / "metrics" / "per_case.csv")
    scales = {"0.25"} if name == "single_scale" else {"1", "0.5", "0.25", "0.125"}
    assert {r["scale"] for r in rows} == scales
    assert len(rows) == 2 * len(scales) * 3 * 2  # cases, scales, grids, classes


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_is_validated_in_training_as_it_is_evaluated_and_knows_its_side(tiny, tmp_path, name):
    train, train_options, evaluate, options = BASELINES[name]
    paths = dict(dataset_dir=str(tiny), splits_file=str(tiny / "splits.json"), output_dir=str(tmp_path))
    files = overlays(TASK, train + [name for name in evaluate if name not in train])
    kwargs = {**paths, **train_options, **options}
    training = run("train.json", *files, workflow_type="train", run=False, **kwargs).parser
    inferers = [training.get_parsed_content("validate#evaluator").inferer]
    files = [PROTOCOL, *overlays(TASK, evaluate)]
    inferers.append(run(*EVALUATE, *files, run=False, **paths, **options).parser.get_parsed_content("inferer"))
    # A whole head is found in inference alone.
    names = ["MirrorInferer" if isinstance(i, MirrorInferer) else type(i).__name__ for i in inferers]
    assert names[0] == names[1]
    described = [(i.levels.num_levels, getattr(i, "output", ""), getattr(i, "side", "left")) for i in inferers]
    assert described[0] == described[1] and described[0][2] == "left"


def test_the_authors_training_setup_is_validated_with_the_labels_and_scans_of_training(tiny, tmp_path):
    files = overlays(TASK, ["paper_network", "rare_unet_paper"])
    paths = dict(dataset_dir=str(tiny), splits_file=str(tiny / "splits.json"), output_dir=str(tmp_path))
    parser = run("train.json", *files, workflow_type="train", run=False, **paths).parser
    train, validate = (parser.get_parsed_content(f"{key}#preprocessing") for key in ("train", "validate"))
    item = parser.get_parsed_content("train_data")[0]
    pyramid = train(item)
    for level in range(4):
        scan = validate({**item, "level": level})
        for key in ("image", "label"):
            size = scan[key].shape[1:]  # the pyramid's is padded at its end
            seen = pyramid[f"{key}_{level}"][:, : size[0], : size[1], : size[2]]
            torch.testing.assert_close(seen.as_tensor(), scan[key].as_tensor())


def test_the_authors_training_setup_stops_when_it_no_longer_improves(tiny, tmp_path):
    files = overlays(TASK, ["paper_network", "rare_unet_paper"])
    paths = dict(dataset_dir=str(tiny), splits_file=str(tiny / "splits.json"), output_dir=str(tmp_path))
    still = {"early_stop#patience": 2, "learning_rate": 0.0, "max_epochs": 9}
    workflow = run("train.json", *files, workflow_type="train", **still, **paths, **SMALL)
    assert (
        workflow.parser.get_parsed_content("train#trainer").state.epoch == 3
    )  # the first, and two that were no better


@pytest.mark.parametrize("name, level", [("unet", 0), ("single_scale", 1), ("single_scale", 3)])
def test_parameter_counts_of_the_baselines_match_ours_within_ten_percent(name, level):
    def used(net, level):
        modules = leaves_run(net.eval(), torch.rand(1, 1, 32, 32, 32), level)
        return sum(p.numel() for m in modules for p in m.parameters())

    ours, theirs = (
        run("inference.json", *files, run=False).parser.get_parsed_content("network_def")
        for files in ((), overlays(TASK, [name]))
    )
    assert used(theirs, level) == pytest.approx(used(ours, level), rel=0.1)


def test_segmentations_saved_by_evaluating_get_the_same_scores_as_predictions(tmp_path):
    paths = dict(dataset_dir=str(SUBJECT), output_dir=str(tmp_path / "a"))
    run(*EVALUATE, PROTOCOL, **paths, save_answers=True)
    expected = {tuple(list(r.values())[:4]): r for r in read(tmp_path / "a" / "metrics" / "per_case.csv")}
    for grid in ("native", "full"):
        files = (*EVALUATE, PROTOCOL, OVERLAYS / "predictions.json")
        paths["output_dir"] = str(tmp_path / grid)
        run(*files, **paths, predictions=str(tmp_path / "a" / "answers" / grid))
        rows = [r for r in read(tmp_path / grid / "metrics" / "per_case.csv") if r["grid"] == grid]
        assert len(rows) == 16 and rows == [expected[tuple(list(r.values())[:4])] for r in rows]


def test_the_oracle_is_perfect_on_the_coarse_grid_and_loses_what_interpolation_loses(tmp_path):
    workflow = run(*EVALUATE, PROTOCOL, OVERLAYS / "oracle.json", dataset_dir=str(SUBJECT), output_dir=str(tmp_path))
    rows = workflow.parser.get_parsed_content("key_metric#mean_dice").rows
    assert {r["dice"] for r in rows if r["grid"] == "native"} == {1.0}
    full = {s: [r["dice"] for r in rows if r["grid"] == "full" and r["scale"] == s] for s in (1, 0.5, 0.25, 0.125)}
    means = [sum(d) / len(d) for d in full.values()]
    assert means[0] == 1.0 and means == sorted(means, reverse=True) and means[3] < 0.5


def test_the_papers_protocol_crops_or_pads_every_case_to_its_size(tmp_path):
    options = dict(crop=[32, 64, 32], downsample="trilinear", save_answers=True)
    run(*EVALUATE, PROTOCOL, dataset_dir=str(SUBJECT), output_dir=str(tmp_path), **options)
    for scale, size in (("1", (32, 64, 32)), ("0.125", (4, 8, 4))):
        assert nib.load(tmp_path / "answers/native" / scale / CASE.name).shape == size


def test_the_papers_protocol_scores_a_third_grid_and_leaves_the_other_two_as_they_are(tmp_path):
    """By the command of the documentation, from another folder: the bundle is that of the first config file."""
    files = f"['{CONFIGS}/inference.json','{CONFIGS}/evaluate.json','{PROTOCOL}']"
    result = command("evaluating", files, dataset_dir=SUBJECT, output_dir=tmp_path / "paper", save_answers="True")
    assert result.returncode == 0, result.stdout
    run(*EVALUATE, dataset_dir=str(SUBJECT), output_dir=str(tmp_path / "shipped"))
    paper, shipped = (read(tmp_path / name / "metrics" / "per_case.csv") for name in ("paper", "shipped"))
    assert {row["grid"] for row in paper} == {"native", "native_nearest", "full"}
    assert [row for row in paper if row["grid"] != "native_nearest"] == shipped
    assert len(list((tmp_path / "paper" / "answers").rglob("*.nii.gz"))) == 16  # cases, scales, grids
    assert not (tmp_path / "shipped" / "answers").exists()


def test_dice_by_the_papers_protocol_on_the_shipped_labelled_subject_is_the_stored_one(tmp_path):
    workflow = run(*EVALUATE, PROTOCOL, dataset_dir=str(SUBJECT), output_dir=str(tmp_path))
    lines = summarise(workflow.parser.get_parsed_content("key_metric#mean_dice").rows)
    dice = [s for s in lines if s["measure"] == "dice" and s["scale"] != "average"]
    found = {f"{s['grid']}_{s['scale']}_{s['class']}": s["mean"] for s in dice}
    expected = json.loads((Path(__file__).parent / "expected.json").read_text())["sample_dice"]
    assert found == pytest.approx(expected["values"], abs=expected["tolerance"])


def test_the_decoder_heads_ablation_trains_and_is_evaluated(tiny, tmp_path):
    overlay = EXPERIMENT / "hippocampus/ablations/delta_decoder_head.json"
    paths = dict(dataset_dir=str(tiny), splits_file=str(tiny / "splits.json"), output_dir=str(tmp_path))
    small = {"network_def#channels": SMALL["network_def#channels"]}
    workflow = run("train.json", overlay, workflow_type="train", max_epochs=1, **paths, **small)
    assert isinstance(workflow.parser.get_parsed_content("network_def"), DecoderHeadRAREUNet)
    run(*EVALUATE, overlay, checkpoint=str(tmp_path / "model.pt"), **paths, **small)
    assert {row["grid"] for row in read(tmp_path / "metrics" / "per_case.csv")} == {"native", "full"}
