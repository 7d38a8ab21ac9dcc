import logging

import pytest
import torch
from monai.data import MetaTensor, decollate_batch
from monai.inferers import SlidingWindowInferer

from rare_unet_networks.inferers.routing import ResolutionRoutingInferer
from rare_unet_networks.levels import ResolutionLevels, Route
from rare_unet_networks.networks import Prediction, RAREUNet

LEVELS = ResolutionLevels(num_levels=4, spatial_size=(32, 64, 32), spacing=(1.0, 1.0, 1.0))
BY_SIZE = ResolutionLevels(num_levels=4, spatial_size=(32, 64, 32), spacing=(1.0, 1.0, 1.0), routing="size")


class Recorder(torch.nn.Module):
    """Returns its input as logits and remembers what it was called with."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, x, level=0):
        self.calls.append((tuple(x.shape[2:]), level, type(x)))
        return torch.cat([x, -x], dim=1)


def window(*roi_size):
    return SlidingWindowInferer(roi_size, mode="gaussian")


def scan(size, spacing=(1.0, 1.0, 1.0), channels=1, value=None):
    data = torch.rand(1, channels, *size) if value is None else torch.full((1, channels, *size), value)
    return MetaTensor(data, affine=torch.diag(torch.tensor([*spacing, 1.0])))


# input size, spacing, level, size the network sees
CASES = [
    ((35, 51, 35), (1.0, 1.0, 1.0), 0, (48, 64, 48)),
    ((18, 26, 18), (2.0, 2.0, 2.0), 1, (24, 32, 24)),
    ((9, 13, 9), (4.0, 4.0, 4.0), 2, (12, 16, 12)),
    ((5, 7, 5), (8.0, 8.0, 8.0), 3, (6, 8, 6)),
    ((35, 51, 9), (1.0, 1.0, 4.0), 0, (48, 64, 48)),  # the thick axis becomes 36 voxels
    ((24, 34, 24), (1.5, 1.5, 1.5), 1, (24, 32, 24)),  # 18 × 25.5 (26) × 18 voxels of 2 mm
    ((1, 1, 1), (8.0, 8.0, 8.0), 3, (4, 2, 2)),
]


@pytest.mark.parametrize("size, spacing, level, seen", CASES)
def test_scan_enters_its_level_and_the_prediction_lies_on_its_grid(size, spacing, level, seen):
    net, image = Recorder(), scan(size, spacing)
    out = ResolutionRoutingInferer(LEVELS)(image, net)
    assert net.calls == [(seen, level, torch.Tensor)]
    assert out.shape == (1, 2, *size)
    assert isinstance(out, MetaTensor) and torch.equal(out.affine, image.affine)


def test_without_resampling_the_grid_is_untouched():
    image = scan((35, 51, 33))
    out = ResolutionRoutingInferer(LEVELS)(image, Recorder())
    assert torch.equal(out[:, :1].as_tensor(), image.as_tensor())


@pytest.mark.parametrize("output", ["scan", "fine", "both"])
def test_the_route_travels_with_every_prediction_and_its_members_and_not_with_the_scan(output):
    image = MetaTensor(torch.rand(2, 1, 18, 26, 18), affine=torch.stack([torch.diag(torch.tensor([2.0, 2, 2, 1]))] * 2))
    image.is_batch = True
    image.applied_operations = [[], []]
    net = RAREUNet(3, 1, 3, channels=(2, 4, 4, 4, 4), fine_convs=1).eval()
    with torch.no_grad():
        found = ResolutionRoutingInferer(LEVELS, output=output)(image, net)
    for prediction in found.values() if output == "both" else [found]:
        route = prediction.meta["route"]
        assert route == LEVELS.route(image) and route.level == 1 and route.scale == (2, 2, 2)
        members = decollate_batch(prediction)
        assert [m.meta["route"] for m in members] == [route, route]
        assert isinstance(members[0].meta["route"], Route) and "side" not in members[0].meta
    assert "route" not in image.meta


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("spacing", [1.5, 4.0, 0.5])
def test_resampling_there_and_back_keeps_a_ramp_in_place(axis, spacing):
    """Linear interpolation reproduces a linear ramp; half a voxel of shift would change it by half a step."""
    size, spacings = [20, 20, 20], [1.0, 1.0, 1.0]
    spacings[axis] = spacing
    ramp = torch.arange(20.0).reshape([1, 1] + [-1 if a == axis else 1 for a in range(3)]).expand(1, 1, *size)
    image = MetaTensor(ramp.clone(), affine=torch.diag(torch.tensor([*spacings, 1.0])))
    out = ResolutionRoutingInferer(LEVELS, cval=0.0)(image, Recorder())[:, :1].as_tensor()
    inner = out.narrow(2 + axis, 5, 10)
    torch.testing.assert_close(inner, ramp.narrow(2 + axis, 5, 10), atol=0.05, rtol=0)


@pytest.mark.parametrize("spacing", [0.25, 0.5, 0.75, 4.0])
def test_resampling_keeps_a_constant_up_to_the_border(spacing):
    seen = []

    def net(x, level):
        seen.append(x)
        return x

    image = scan((32, 40, 24), (spacing, spacing, 1.0), value=1.0)
    out = ResolutionRoutingInferer(LEVELS, cval=1.0)(image, net)
    torch.testing.assert_close(seen[0], torch.ones_like(seen[0]), atol=1e-3, rtol=0)
    torch.testing.assert_close(out.as_tensor(), image.as_tensor(), atol=1e-3, rtol=0)


def test_an_axis_within_ten_percent_is_not_resampled():
    net = Recorder()
    ResolutionRoutingInferer(LEVELS)(scan((32, 32, 32), (1.0, 1.09, 0.91)), net)
    assert net.calls[0][0] == (32, 32, 32)


def test_plain_tensor_is_placed_by_size():
    net = Recorder()
    out = ResolutionRoutingInferer(LEVELS)(torch.rand(1, 1, 16, 32, 16), net)
    assert net.calls[0][1] == 1 and not isinstance(out, MetaTensor)


def test_size_routing_follows_the_papers_rule_for_meta_tensors_too():
    net = Recorder()
    ResolutionRoutingInferer(BY_SIZE)(scan((8, 16, 8), (1.0, 1.0, 1.0)), net)
    assert net.calls == [((8, 16, 8), 2, torch.Tensor)]


def test_metadata_of_a_batch_is_kept():
    image = scan((32, 32, 32))
    image.meta["filename_or_obj"] = "a.nii.gz"
    out = ResolutionRoutingInferer(LEVELS)(image, Recorder())
    assert out.meta["filename_or_obj"] == "a.nii.gz"


def test_level_and_reason_are_logged(caplog):
    image = scan((18, 26, 18), (2.0, 2.0, 2.0))
    image.meta["filename_or_obj"] = "patient.nii.gz"
    with caplog.at_level(logging.DEBUG):
        ResolutionRoutingInferer(LEVELS)(image, Recorder())
    assert "patient.nii.gz: level 1 (scale 1/2): spacing 2×2×2 mm" in caplog.text
    assert "padded from 18×26×18 to 24×32×24" in caplog.text


@pytest.mark.parametrize(
    "spacing, far",
    [(0.4, False), (1.4, False), (8.0, False), (8.8, False), (8.9, True), (12.0, True), ((1.0, 1.0, 12.0), True)],
)
def test_spacing_coarser_than_every_level_is_warned_of_by_its_coarsest_axis(caplog, spacing, far):
    spacing = spacing if isinstance(spacing, tuple) else (spacing,) * 3
    with caplog.at_level(logging.WARNING):
        ResolutionRoutingInferer(LEVELS)(scan((16, 16, 16), spacing), Recorder())
    assert ("is coarser than the coarsest level's, 8×8×8 mm: do not trust the prediction" in caplog.text) == far


@pytest.mark.parametrize("level, largest", [(0, 32), (1, 16), (2, 8), (3, 4)])
def test_larger_than_roi_goes_through_a_sliding_window_of_as_many_mm_at_each_level(level, largest):
    """Grids of one and a quarter windows: two windows along each axis."""
    size, spacing = largest * 5 // 4, 2.0**level
    net, image = Recorder(), scan((size,) * 3, (spacing,) * 3)
    out = ResolutionRoutingInferer(LEVELS, window=window(32, 32, 32))(image, net)
    assert {call[:2] for call in net.calls} == {((largest,) * 3, level)} and len(net.calls) == 8
    torch.testing.assert_close(out[:, :1].as_tensor(), image.as_tensor())


def test_arguments_go_on_to_the_network():
    seen = {}

    def net(x, extra, level, flag):
        seen.update(extra=extra, flag=flag)
        return x

    ResolutionRoutingInferer(LEVELS)(scan((16, 16, 16)), net, "extra", flag=True)
    assert seen == {"extra": "extra", "flag": True}


@pytest.mark.parametrize(
    "roi_size, match",
    [
        ((32, 32), "must have 3 axes"),
        ((30, 32, 32), r"a size level 0 can process, as \(32, 32, 32\)"),
        ((16, 16, 16), r"a size level 0 can process, as \(32, 16, 16\)"),  # a single voxel at the deepest stage
        ((0, 32, 32), "1 voxel or more"),
    ],
)
def test_ill_roi_size_is_refused(roi_size, match):
    with pytest.raises(ValueError, match=match):
        ResolutionRoutingInferer(LEVELS, window=window(*roi_size))


class Repeater(Recorder):
    """Predicts on the level 0 grid: every voxel repeated."""

    def forward(self, x, level=0, output="scan"):
        self.calls.append((tuple(x.shape[2:]), level, output))
        for axis in (2, 3, 4) if output == "fine" else ():
            x = x.repeat_interleave(2**level, dim=axis)
        return x


# input size, spacing, level, output passed to the network, size and spacing of the prediction
FULL_CASES = [
    ((35, 51, 33), (1.0, 1.0, 1.0), 0, "scan", (35, 51, 33), (1.0, 1.0, 1.0)),
    ((18, 26, 17), (2.0, 2.0, 2.0), 1, "fine", (36, 52, 34), (1.0, 1.0, 1.0)),
    ((5, 7, 5), (8.0, 8.0, 8.0), 3, "fine", (40, 56, 40), (1.0, 1.0, 1.0)),
    ((35, 51, 9), (1.0, 1.0, 4.0), 0, "scan", (35, 51, 36), (1.0, 1.0, 1.0)),
    ((24, 36, 24), (1.5, 1.5, 1.5), 1, "fine", (36, 54, 36), (1.0, 1.0, 1.0)),
    ((9, 9, 9), (4.2, 4.2, 4.2), 2, "fine", (36, 36, 36), (1.05, 1.05, 1.05)),  # within the tolerance: not resampled
]


@pytest.mark.parametrize("size, spacing, level, output, fine_size, fine_spacing", FULL_CASES)
def test_fine_prediction_covers_the_scan_at_level_0_spacing(size, spacing, level, output, fine_size, fine_spacing):
    net, image = Repeater(), scan(size, spacing)
    out = ResolutionRoutingInferer(LEVELS, output="fine")(image, net)
    assert net.calls[0][1:] == (level, output)
    assert out.shape == (1, 1, *fine_size)
    assert out.pixdim.tolist() == pytest.approx(fine_spacing)
    # The first corner of the first voxel is where it was.
    corner = [float(out.affine[i, 3]) - fine_spacing[i] / 2 for i in range(3)]
    assert corner == pytest.approx([-s / 2 for s in spacing])


def test_full_prediction_without_resampling_is_the_networks_in_place():
    image = scan((5, 6, 7), (4.0, 4.0, 4.0))
    out = ResolutionRoutingInferer(LEVELS, output="fine")(image, Repeater())
    for axis in (2, 3, 4):
        image = image.as_tensor().repeat_interleave(4, dim=axis) if axis == 2 else image.repeat_interleave(4, dim=axis)
    assert torch.equal(out.as_tensor(), image)


def test_full_prediction_of_a_large_scan_comes_from_a_sliding_window():
    image, net = scan((40, 16, 16), (2.0, 2.0, 2.0)), Repeater()
    out = ResolutionRoutingInferer(LEVELS, output="fine", window=window(32, 32, 32))(image, net)
    assert len(net.calls) > 1 and {call[0] for call in net.calls} == {(16, 16, 16)}
    expected = image.as_tensor()
    for axis in (2, 3, 4):
        expected = expected.repeat_interleave(2, dim=axis)
    torch.testing.assert_close(out.as_tensor(), expected)


def test_both_predictions_come_from_one_forward_pass():
    torch.manual_seed(0)
    net = RAREUNet(3, 1, 3, channels=(2, 4, 4, 4, 4), fine_convs=1).eval()
    calls = []
    net.register_forward_hook(lambda *_: calls.append(1))
    for size, spacing in (((18, 26, 17), 2.0), ((35, 51, 33), 1.0)):
        image = scan(size, (spacing,) * 3)
        with torch.no_grad():
            native, full = (ResolutionRoutingInferer(LEVELS, output=o)(image, net) for o in ("scan", "fine"))
            calls.clear()
            both = ResolutionRoutingInferer(LEVELS, output="both")(image, net)
        assert len(calls) == 1
        torch.testing.assert_close(both["pred"], native)
        torch.testing.assert_close(both["pred_fine"], full)
        assert torch.equal(both["pred_fine"].affine, full.affine)


def test_both_predictions_of_a_large_scan_come_from_a_sliding_window_in_place():
    class Both(Repeater):
        def forward(self, x, level=0, output="scan"):
            return Prediction(x.clone(), super().forward(x, level, "fine"))

    image, net = scan((40, 16, 16), (2.0, 2.0, 2.0)), Both()
    out = ResolutionRoutingInferer(LEVELS, output="both", window=window(32, 32, 32))(image, net)
    assert len(net.calls) > 1
    expected = image.as_tensor()
    torch.testing.assert_close(out["pred"].as_tensor(), expected)
    for axis in (2, 3, 4):
        expected = expected.repeat_interleave(2, dim=axis)
    torch.testing.assert_close(out["pred_fine"].as_tensor(), expected)


def test_a_single_level_does_not_warn_of_coarse_scans(caplog):
    one = ResolutionLevels(1, (32, 64, 32), (1.0, 1.0, 1.0), num_stages=5)
    ResolutionRoutingInferer(one)(scan((9, 13, 9), (4.0, 4.0, 4.0)), Recorder())
    assert "do not trust" not in caplog.text


def test_of_a_resampled_scan_only_the_full_prediction_is_given():
    net = RAREUNet(3, 1, 3, channels=(2, 4, 4, 4, 4), fine_convs=1).eval()
    with torch.no_grad():
        out = ResolutionRoutingInferer(LEVELS, output="both")(scan((35, 51, 9), (1.0, 1.0, 4.0)), net)
    assert set(out) == {"pred_fine"} and out["pred_fine"].shape == (1, 3, 35, 51, 36)


def test_one_level_is_a_unet_fed_the_upsampled_scan():
    one, net = ResolutionLevels(1, (32, 64, 32), (1.0, 1.0, 1.0), num_stages=5), Repeater()
    out = ResolutionRoutingInferer(one, output="fine")(scan((9, 13, 9), (4.0, 4.0, 4.0)), net)
    assert net.calls == [((48, 64, 48), 0, "scan")]
    assert out.shape == (1, 1, 36, 52, 36) and out.pixdim.tolist() == [1.0, 1.0, 1.0]


def test_unknown_output_is_refused():
    with pytest.raises(ValueError, match=r"output must be one of .'scan', 'fine', 'both'., got 'full'"):
        ResolutionRoutingInferer(LEVELS, output="full")


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("output", ["scan", "fine", "both"])
def test_only_the_box_of_the_foreground_is_computed_and_around_it_is_background(level, output):
    """A block of 10×7×9 voxels at (3, 4, 5) of an empty scan; the prediction is needed on the scan's whole grid."""
    seen = []

    def net(x, level=0, output="scan"):
        seen.append(tuple(x.shape[2:]))
        logits = torch.cat([-x, x], dim=1)  # foreground where the scan is 1
        fine = torch.nn.functional.interpolate(logits, scale_factor=2**level)
        return {"scan": logits, "fine": fine, "both": Prediction(logits, fine)}[output]

    image = scan((32, 32, 32), (2.0**level,) * 3, value=0.0)
    image[:, :, 3:13, 4:11, 5:14] = 1
    found = ResolutionRoutingInferer(LEVELS, output=output, crop_foreground=True)(image, net)
    assert seen == [{0: (32, 16, 16), 1: (16, 8, 16), 2: (12, 8, 12)}[level]]
    predictions = found if output == "both" else {"pred" if output == "scan" else "pred_fine": found}
    assert predictions.keys() == {"scan": {"pred"}, "fine": {"pred_fine"}, "both": {"pred", "pred_fine"}}[output]
    whole = ResolutionRoutingInferer(LEVELS, output=output)(image, net)
    for key, logits in predictions.items():
        scale = 2**level if key == "pred_fine" else 1
        expected = image.as_tensor().repeat_interleave(scale, 2).repeat_interleave(scale, 3).repeat_interleave(scale, 4)
        assert torch.equal(logits.argmax(dim=1, keepdim=True).as_tensor(), expected.long())
        uncropped = whole[key] if output == "both" else whole
        assert logits.shape == uncropped.shape and torch.equal(logits.affine, uncropped.affine)


def test_a_scan_without_foreground_is_computed_as_a_whole():
    net = Recorder()
    ResolutionRoutingInferer(LEVELS, crop_foreground=True)(scan((32, 32, 32), value=0.0), net)
    assert net.calls[0][0] == (32, 32, 32)
