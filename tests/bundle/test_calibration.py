"""Calibration: which number a head gets, what it changes, the limits of the doubt, and ``run calibrating`` for real."""

import json
import re

import pytest
import torch
from ignite.engine import Events
from monai.data import MetaTensor

from rare_unet_networks.bundle.calibration import bias_of, calibrate, score_offsets, shift_background
from rare_unet_networks.levels import ResolutionLevels
from rare_unet_networks.networks import RAREUNet

from ..bundles.conftest import BUNDLES, EVALUATE, REPOSITORY, command, run

KWARGS = dict(spatial_dims=3, in_channels=1, out_channels=3, channels=(2, 4, 4, 4, 4), fine_convs=1)
HIPPOCAMPUS = BUNDLES["hippocampus_mri_segmentation"]
CONFIGS = (*EVALUATE, "calibrate.json")
SCANS = {
    "dataset_dir": str(HIPPOCAMPUS / "sample/Task04_Hippocampus"),
    "splits_file": str(REPOSITORY / "tests/bundles/sample_splits.json"),
}


@pytest.mark.parametrize("level", [0, 2])
def test_calibration_shifts_the_background_alone(level):
    torch.manual_seed(0)
    net = RAREUNet(**KWARGS).eval()
    state = net.state_dict()
    x = torch.rand(1, 1, *(32 >> level for _ in range(3)))
    with torch.no_grad():
        before = [net(x, level=level, output=o) for o in ("scan", "fine")]
        shift_background(state, bias_of(net, "scan", level), 0.5)
        if level:
            shift_background(state, bias_of(net, "fine", level), 0.7)
        net.load_state_dict(state)
        after = [net(x, level=level, output=o) for o in ("scan", "fine")]
    for old, new, offset in zip(before, after, (0.5, 0.7 if level else 0.5)):
        torch.testing.assert_close(new[:, 0], old[:, 0] + offset)
        torch.testing.assert_close(new[:, 1:], old[:, 1:])


AFFINES = [torch.eye(4), torch.diag(torch.tensor([-1.0, -1, 1, 1]))]  # the label in RAS and in LPS order


def case(level, label_affine, logits=(0.35, 0.35, 0.15, 0.15)):
    """A scan of four voxels: two of class 1, and the logits of class 1 against 0 for the background."""
    image = MetaTensor(torch.tensor(logits).reshape(1, 4, 1, 1), affine=torch.eye(4))
    label = torch.tensor([1.0, 1, 0, 0]).reshape(1, 4, 1, 1)
    if label_affine[0, 0] < 0:
        label_affine = label_affine.clone()
        label_affine[0, 3], label = 3, label.flip(1)
    label = MetaTensor(label, affine=label_affine)
    return {"image": image, "label": label, "label_fine": label, "level": level, "case": "a"}


def of_image(image, network):
    logits = torch.cat([torch.zeros_like(image), image], dim=1)
    return {"pred": logits, "pred_fine": logits}


@pytest.mark.parametrize("affine", AFFINES)
def test_dice_of_an_offset_by_hand(affine):
    """Up to 0.1 all four voxels are of class 1: 2 · 2 / (4 + 2). With 0.2 and 0.3 the two of the label; then none."""
    net = RAREUNet(3, 1, 2, channels=(2, 4, 4))
    scores = score_offsets(net, [case(0, affine)], of_image, (0.0, 0.1, 0.2, 0.3, 0.4))
    assert scores == {"heads.0.conv.bias": pytest.approx({0.0: 2 / 3, 0.1: 2 / 3, 0.2: 1, 0.3: 1, 0.4: 0})}


def test_error_of_the_volume_by_hand():
    """Four voxels against two up to 0.1: twice the volume. Two from 0.2. None with 0.4: all of it is missing."""
    net = RAREUNet(3, 1, 2, channels=(2, 4, 4))
    scores = score_offsets(net, [case(0, AFFINES[0])], of_image, (0.0, 0.1, 0.2, 0.4), "volume")
    assert scores == {"heads.0.conv.bias": pytest.approx({0.0: -1, 0.1: -1, 0.2: 0, 0.4: -1})}


def test_an_acquisition_without_a_level_is_placed_by_its_voxel_size():
    net = RAREUNet(3, 1, 2, channels=(2, 4, 4), num_gateways=1)
    acquired = case(1, AFFINES[0])
    del acquired["level"]
    for key in ("image", "label", "label_fine"):
        acquired[key].affine = torch.diag(torch.tensor([2.0, 2, 2, 1]))
    levels = ResolutionLevels(2, spacing=(1.0, 1.0, 1.0))
    scores = score_offsets(net, [acquired], of_image, (0.0,), levels=levels)
    assert sorted(scores) == ["full_heads.0.conv_block.1.conv.bias", "heads.1.conv.bias"]  # of level 1
    assert scores["heads.1.conv.bias"] == pytest.approx({0.0: 2 / 3})


def test_an_unknown_criterion_is_refused(tmp_path):
    net = RAREUNet(3, 1, 2, channels=(2, 4, 4))
    with pytest.raises(ValueError, match=r"criterion must be one of \('dice', 'volume'\), got 'f1'"):
        calibrate(net, [], of_image, tmp_path / "model.pt", tmp_path / "out.pt", (), "f1")


def of_three_classes(image, network):
    """Classes 2 and 3 have the smallest logit: they are nowhere."""
    logits = torch.cat([torch.zeros_like(image), image, *[torch.full_like(image, -9.0)] * 2], dim=1)
    return {"pred": logits, "pred_fine": logits}


def test_a_class_that_no_scan_has_does_not_count():
    net = RAREUNet(3, 1, 4, channels=(2, 4, 4))
    scores = score_offsets(net, [case(0, AFFINES[0])] * 2, of_three_classes, (0.0, 0.2))
    assert scores == {"heads.0.conv.bias": pytest.approx({0.0: 2 / 3, 0.2: 1})}


def test_a_level_whose_labels_are_all_empty_is_named():
    net = RAREUNet(3, 1, 2, channels=(2, 4, 4), num_gateways=1)
    empty = case(1, AFFINES[0])
    for key in ("label", "label_fine"):
        empty[key] = torch.zeros_like(empty[key])
    message = "level 1: expected a class in at least one label, all 2 are empty on the grid"
    with pytest.raises(ValueError, match=message):
        score_offsets(net, [case(0, AFFINES[0]), empty, empty], of_image, (0.0, 0.4))


def test_a_head_of_several_scales_gets_the_best_mean_over_them(tmp_path):
    """A plain U-Net's only head: level 0 is best from 0.2 to 0.3 (1, else 2/3 or 0), level 1 at 0 only (1, else 0)."""
    net = RAREUNet(3, 1, 2, channels=(2, 4, 4), num_gateways=0)
    torch.save(net.state_dict(), tmp_path / "model.pt")
    before = net.state_dict()["heads.0.conv.bias"].clone()
    scans = [case(0, AFFINES[0]), case(1, AFFINES[0], (0.05, 0.05, -0.1, -0.1))]
    calibrate(net, scans, of_image, tmp_path / "model.pt", tmp_path / "out" / "calibrated.pt", (0.0, 0.2, 0.4))
    stored = torch.load(tmp_path / "out" / "calibrated.pt", weights_only=True)
    # Means: 0: (2/3 + 1) / 2, 0.2: (1 + 0) / 2, 0.4: 0.
    assert torch.equal(stored["heads.0.conv.bias"], before.half())
    calibrate(net, scans[:1], of_image, tmp_path / "model.pt", tmp_path / "calibrated.pt", (0.0, 0.2, 0.4))
    stored = torch.load(tmp_path / "calibrated.pt", weights_only=True)
    assert torch.equal(stored["heads.0.conv.bias"], (before + torch.tensor([0.2, 0])).half())


def test_a_scan_that_cannot_be_read_is_named(tmp_path):
    net = RAREUNet(3, 1, 2, channels=(2, 4, 4))
    torch.save(net.state_dict(), tmp_path / "model.pt")
    failure = {"failure": "no such file", "image": "a.nii.gz", "case": "a"}
    with pytest.raises(ValueError, match=r"every scan must be readable, a\.nii\.gz is not: no such file"):
        calibrate(net, [failure], of_image, tmp_path / "model.pt", tmp_path / "out.pt")
    assert not (tmp_path / "out.pt").exists()


def test_weights_of_other_layouts_are_taken_and_a_file_that_holds_none_is_named(tmp_path):
    net = RAREUNet(3, 1, 2, channels=(2, 4, 4))
    torch.save({f"module.{name}": value for name, value in net.state_dict().items()}, tmp_path / "model.pt")
    calibrate(net, [], of_image, tmp_path / "model.pt", tmp_path / "out.pt", ())
    assert torch.load(tmp_path / "out.pt", weights_only=True).keys() == net.state_dict().keys()
    (tmp_path / "pointer.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    with pytest.raises(ValueError, match=r"pointer\.pt: expected weights as torch\.save writes them, .* git-lfs"):
        calibrate(net, [], of_image, tmp_path / "pointer.pt", tmp_path / "out.pt", ())


def test_weights_that_cannot_be_written_leave_the_old_file(tmp_path, monkeypatch):
    net = RAREUNet(3, 1, 2, channels=(2, 4, 4))
    torch.save(net.state_dict(), tmp_path / "model.pt")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "calibrated.pt").write_bytes(b"old")

    def save(content, target):
        (target.write if hasattr(target, "write") else target.write_bytes)(b"cut")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(OSError, match="No space left"):
        calibrate(net, [], of_image, tmp_path / "model.pt", tmp_path / "out" / "calibrated.pt", ())
    assert [(p.name, p.read_bytes()) for p in (tmp_path / "out").iterdir()] == [("calibrated.pt", b"old")]


def test_without_offsets_weights_differ_by_their_precision_alone(tmp_path):
    net = RAREUNet(3, 1, 2, channels=(2, 4, 4))
    torch.save(net.state_dict(), tmp_path / "model.pt")
    calibrate(net, [], of_image, tmp_path / "model.pt", tmp_path / "out.pt", ())
    stored = torch.load(tmp_path / "out.pt", weights_only=True)
    assert stored.keys() == net.state_dict().keys()
    assert all(torch.equal(stored[name], value.half()) for name, value in net.state_dict().items())


def doubts(**options):
    """Doubt by level of the sample case, which an evaluation notes."""
    values = {}

    def note(engine):
        for output in engine.state.output:
            values[output["pred"].meta["route"].level] = output["pred"].meta["doubt"]

    workflow = run(*EVALUATE, run=False, **SCANS, **options)
    workflow.parser.get_parsed_content("evaluator").add_event_handler(Events.ITERATION_COMPLETED, note)
    workflow.run()
    return [values[level] for level in sorted(values)]


def test_the_run_moves_each_head_by_what_it_logs_and_then_finds_the_limits_of_the_doubt(tmp_path):
    configs = [str(HIPPOCAMPUS / "configs" / name) for name in CONFIGS]
    result = command(
        "calibrating",
        json.dumps(configs).replace('"', "'"),
        **SCANS,
        calibrated_file=tmp_path / "calibrated.pt",
    )
    assert result.returncode == 0, result.stdout
    shipped = torch.load(HIPPOCAMPUS / "models/model.pt", weights_only=True)
    stored = torch.load(tmp_path / "calibrated.pt", weights_only=True)
    assert stored.keys() == shipped.keys()
    logged = {name: float(offset) for name, offset in re.findall(r"(\S+\.bias): ([+-][\d.]+), score", result.stdout)}
    assert sorted(logged) == [f"full_heads.{i}.conv_block.1.conv.bias" for i in range(3)] + [
        f"heads.{i}.conv.bias"
        for i in range(2)  # deeper, the scan's grid gets the average of the 1 mm prediction
    ]
    assert any(logged.values())
    for name, value in shipped.items():
        expected = value.float()
        if name in logged:
            expected[: len(expected) // 3] += logged[name]
        assert torch.equal(stored[name], expected.half()), name
    limits = json.loads((tmp_path / "doubt_limit.json").read_text())["doubt_limit"]
    assert f'the line for inference.json: "doubt_limit": {json.dumps(limits)},' in result.stdout
    # Of the calibrated weights, not of those that were given: they differ in a fine head that level 3 alone uses.
    calibrated = doubts(checkpoint=str(tmp_path / "calibrated.pt"), output_dir=str(tmp_path))
    assert limits == [round(1.5 * value, 2) for value in calibrated]
    assert round(1.5 * doubts(output_dir=str(tmp_path), val_levels=[3])[0], 2) != limits[3]
