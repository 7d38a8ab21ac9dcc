import logging

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import NormalizeIntensityd, ScaleIntensityRangePercentilesd

from rare_unet_networks.inferers.mirror import MirrorInferer
from rare_unet_networks.inferers.routing import ResolutionRoutingInferer
from rare_unet_networks.levels import ResolutionLevels
from rare_unet_networks.networks import Prediction

LEVELS = ResolutionLevels(num_levels=4, spatial_size=(32, 64, 32), spacing=(1.0, 1.0, 1.0))
SCALING = ScaleIntensityRangePercentilesd("image", 0.5, 99.5, 0.0, 1.0, clip=True, channel_wise=True)
RAMP = torch.linspace(0, 1, 40).reshape(1, 1, 40, 1, 1).expand(1, 1, 40, 48, 35).clone()


class OneSided(torch.nn.Module):
    """Sure of itself where the left half of the scan is the darker one, in doubt otherwise."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, x, level=0):
        self.calls.append((level, len(x)))
        left, right = x.chunk(2, dim=2)
        sure = (left.flatten(1).mean(dim=1) < right.flatten(1).mean(dim=1)).reshape(-1, 1, 1, 1, 1)
        return torch.cat([-x, x], dim=1) * (1 + 9 * sure)


def base(**options):
    return ResolutionRoutingInferer(LEVELS, **options)


def scan(data, spacing=1.0):
    return MetaTensor(data, affine=torch.diag(torch.tensor([spacing, spacing, spacing, 1.0])))


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_the_other_side_is_found_and_mirrored_and_the_prediction_mirrored_back(level):
    ramp = torch.nn.functional.interpolate(RAMP, [-(-n // 2**level) for n in RAMP.shape[2:]], mode="trilinear")
    known, other = scan(ramp, 2.0**level), scan(ramp.flip(2), 2.0**level)
    net = OneSided()
    inferer = MirrorInferer(base(), scaling=SCALING)
    expected = ResolutionRoutingInferer(LEVELS)(known, OneSided())
    out = inferer(known, net)
    # The scan and its mirror image at the coarsest level, then the scan at its own.
    assert net.calls == [(3, 2), (level, 1)][: 1 if level == 3 else 2]
    assert out.meta["side"] == "left" and out.meta["route"].level == level
    torch.testing.assert_close(out.as_tensor(), expected.as_tensor())
    out = inferer(other, net)
    assert out.meta["side"] == "right" and "side" not in other.meta
    # The network is sure of one orientation alone: their doubt differs a lot.
    assert out.meta["side_margin"] > 0.5
    torch.testing.assert_close(out.as_tensor(), expected.as_tensor().flip(2))
    assert torch.equal(out.affine, other.affine)


def test_the_margin_is_the_difference_of_the_two_doubts():
    """A network that answers both orientations alike has a margin of 0; a side that is given has none."""

    class Even(torch.nn.Module):
        def forward(self, x, level=0):
            return torch.cat([torch.zeros_like(x), torch.ones_like(x)], dim=1)

    assert MirrorInferer(base(), scaling=SCALING)(scan(RAMP), Even()).meta["side_margin"] == 0
    assert "side_margin" not in MirrorInferer(base(), side="left")(scan(RAMP), Even()).meta


def test_each_member_of_a_batch_has_its_own_side():
    inferer = MirrorInferer(base(), scaling=SCALING)  # plain tensors are placed by their size
    out = inferer(torch.cat([RAMP, RAMP.flip(2)]), OneSided())
    torch.testing.assert_close(out[1], out[0].flip(1))
    # Whatever the other members look like: -100 there must not become the padding here.
    together = inferer._coarsest(torch.cat([RAMP, RAMP - 100]), level=0)
    torch.testing.assert_close(together[:1], inferer._coarsest(RAMP, level=0))


@pytest.mark.parametrize("output", ["scan", "fine", "both"])
def test_the_coarsest_level_runs_once(output):
    class Both(OneSided):
        def forward(self, x, level=0, output="scan"):
            y = super().forward(x, level)
            full = torch.nn.functional.interpolate(y, scale_factor=2**level)
            return {"scan": y, "fine": full, "both": Prediction(y, full)}[output]

    known, net = torch.nn.functional.avg_pool3d(RAMP[..., :32], 8), Both()
    expected = ResolutionRoutingInferer(LEVELS, output=output)(scan(known, 8.0), Both())
    for flipped in (False, True):
        seen = scan(known.flip(2) if flipped else known, 8.0)
        out = MirrorInferer(base(output=output), scaling=SCALING)(seen, net)
        predictions, wanted = (x if isinstance(x, dict) else {"": x} for x in (out, expected))
        assert predictions.keys() == wanted.keys()
        for key, value in wanted.items():
            torch.testing.assert_close(
                predictions[key].as_tensor(), value.as_tensor().flip(2) if flipped else value.as_tensor()
            )
            assert torch.equal(predictions[key].affine, value.affine)
            assert predictions[key].meta["side"] == ("right" if flipped else "left")
            assert predictions[key].meta.keys() == {*value.meta.keys(), "side", "side_margin"}
    assert net.calls == [(3, 2), (3, 2)]


def test_each_member_of_a_batch_of_the_coarsest_level_has_its_own_side():
    known = torch.nn.functional.avg_pool3d(RAMP[..., :32], 8)
    inferer, net = MirrorInferer(base(), scaling=SCALING), OneSided()
    out = inferer(scan(torch.cat([known.flip(2), known]), 8.0), net)
    assert net.calls == [(3, 4)]
    torch.testing.assert_close(out.as_tensor()[0], out.as_tensor()[1].flip(1))
    assert out.meta["side"] == ["right", "left"]
    torch.testing.assert_close(out.as_tensor()[1:], ResolutionRoutingInferer(LEVELS)(scan(known, 8.0), net).as_tensor())


def test_a_resampled_scan_of_the_coarsest_level_is_predicted_at_level_0_alone():
    class Both(OneSided):
        def forward(self, x, level=0, output="scan"):
            y = super().forward(x, level)
            return Prediction(y, torch.nn.functional.interpolate(y, scale_factor=2**level))

    affine = torch.diag(torch.tensor([6.0, 8.0, 8.0, 1.0]))
    known = torch.linspace(0, 1, 8).reshape(1, 1, 8, 1, 1).expand(1, 1, 8, 6, 4).clone()  # 48 mm: 6 voxels of 8 mm
    predictions = [
        MirrorInferer(base(output="both"), scaling=SCALING)(MetaTensor(x, affine=affine), Both())
        for x in (known, known.flip(2))
    ]
    assert all(list(p) == ["pred_fine"] for p in predictions)
    assert predictions[0]["pred_fine"].shape == (1, 2, 48, 48, 32)
    torch.testing.assert_close(predictions[1]["pred_fine"].as_tensor(), predictions[0]["pred_fine"].as_tensor().flip(2))


@pytest.mark.parametrize("side, mirrored", [("left", False), ("right", True)])
def test_a_known_side_is_taken_without_looking(side, mirrored):
    net = OneSided()
    out = MirrorInferer(base(), side=side)(scan(RAMP), net)
    assert out.meta["side"] == side
    assert net.calls == [(0, 1)]
    seen = RAMP.flip(2) if mirrored else RAMP
    expected = ResolutionRoutingInferer(LEVELS)(scan(seen), OneSided()).as_tensor()
    torch.testing.assert_close(out.as_tensor(), expected.flip(2) if mirrored else expected)


def test_both_predictions_are_mirrored_back():
    class Both(OneSided):
        def forward(self, x, level=0, output="scan"):
            y = super().forward(x, level)
            fine = torch.nn.functional.interpolate(y, scale_factor=2**level)
            return {"scan": y, "fine": fine, "both": Prediction(y, fine)}[output]

    half = torch.nn.functional.avg_pool3d(RAMP[..., :34], 2)
    known = MirrorInferer(base(output="both"), scaling=SCALING)(scan(half, 2.0), Both())
    other = MirrorInferer(base(output="both"), scaling=SCALING)(scan(half.flip(2), 2.0), Both())
    for key in ("pred", "pred_fine"):
        torch.testing.assert_close(other[key].as_tensor(), known[key].as_tensor().flip(2))


@pytest.mark.parametrize(
    "scaling, low, high",
    [
        (SCALING, 0.0, 1.0),
        # Means of blocks of 8 in a ramp of 64 voxels: 8 steps, from -3.5 to 3.5, of deviation sqrt(5.25).
        (NormalizeIntensityd("image"), -3.5 / 5.25**0.5, 3.5 / 5.25**0.5),
    ],
)
def test_the_side_is_chosen_on_intensities_scaled_as_the_scans_are(scaling, low, high):
    seen = []

    def network(x, level=0):
        seen.append(x)
        return torch.cat([-x, x], dim=1)

    ramp = torch.linspace(0, 1, 64).reshape(1, 64, 1, 1).expand(1, 64, 64, 64).clone()
    MirrorInferer(base(), scaling=scaling)(scan(scaling({"image": ramp})["image"][None]), network)
    x = seen[0]
    assert x.shape == (2, 1, 8, 8, 8) and not isinstance(x, MetaTensor)
    expected = torch.linspace(low, high, 8)
    torch.testing.assert_close(x[0, 0, :, 3, 3], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(x[1, 0, :, 3, 3], expected.flip(0), atol=1e-5, rtol=0)


def test_the_choice_is_logged(caplog):
    with caplog.at_level(logging.DEBUG):
        MirrorInferer(base(), scaling=SCALING)(scan(RAMP.flip(2)), OneSided())
    assert any(message.startswith("side: right (entropy per foreground voxel ") for message in caplog.messages)


def test_unknown_side_is_refused():
    with pytest.raises(ValueError, match=r"side must be one of .*, got 'as_is'"):
        MirrorInferer(base(), side="as_is")
    with pytest.raises(ValueError, match=r"side 'auto' needs scaling, .* got None"):
        MirrorInferer(base())
