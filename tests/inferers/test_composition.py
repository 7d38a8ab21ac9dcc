"""Inferers around inferers: in any order, with one decision about the route and one about the side."""

import pytest
import torch
from monai.data import MetaTensor

from rare_unet_networks.inferers import MirrorInferer, MultiLevelInferer, ResolutionRoutingInferer
from rare_unet_networks.levels import ResolutionLevels
from rare_unet_networks.networks import Prediction

LEVELS = ResolutionLevels(num_levels=3, spatial_size=(32, 32, 32), spacing=(1.0, 1.0, 1.0))
RAMP = torch.linspace(1, 2, 32).reshape(1, 1, 32, 1, 1).expand(1, 1, 32, 32, 32).clone()


def unchanged(data):
    """A scaling that changes nothing."""
    return data


class OneSided(torch.nn.Module):
    """Certain of itself where the left half of the scan is the darker one; its logits tell levels and voxels apart."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, x, level=0, output="scan"):
        self.calls.append((level, len(x)))
        first, second = x.chunk(2, dim=2)
        certain = (first.flatten(1).mean(dim=1) < second.flatten(1).mean(dim=1)).reshape(-1, 1, 1, 1, 1)
        logits = torch.cat([-x, x], dim=1) * (1 + 4 * certain) / (1 + level)
        fine = torch.nn.functional.interpolate(logits, scale_factor=2**level)
        return {"scan": logits, "fine": fine, "both": Prediction(logits, fine)}[output]


def scan(data, spacing=1.0):
    return MetaTensor(data, affine=torch.diag(torch.tensor([spacing, spacing, spacing, 1.0])))


def base(**options):
    return ResolutionRoutingInferer(LEVELS, output="both", **options)


def mirror_around_multi_level(**options):
    return MirrorInferer(MultiLevelInferer(base(**options), 2, unchanged), scaling=unchanged)


def multi_level_around_mirror(**options):
    return MultiLevelInferer(MirrorInferer(base(**options), scaling=unchanged), 2, unchanged)


BOTH_ORDERS = [mirror_around_multi_level, multi_level_around_mirror]


@pytest.mark.parametrize("build", BOTH_ORDERS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_side_is_chosen_once_and_every_level_predicts_for_it(build, side):
    """Of either order the prediction is that of several levels for the left side, mirrored back for the right one."""
    net, image = OneSided(), scan(RAMP.flip(2) if side == "right" else RAMP)
    predictions = build()(image, net)
    assert net.calls == [(2, 2), (0, 1), (1, 1), (2, 1)]  # both sides at the coarsest level, then one by one
    expected = MultiLevelInferer(base(), 2, unchanged)(scan(RAMP), OneSided())
    alone = base()(scan(RAMP), OneSided())
    for key in ("pred", "pred_fine"):
        assert predictions[key].meta["side"] == side and predictions[key].meta["route"].level == 0
        logits = predictions[key].as_tensor()
        torch.testing.assert_close(logits.flip(2) if side == "right" else logits, expected[key].as_tensor())
        assert not torch.allclose(expected[key].softmax(1), alone[key].softmax(1), atol=0.01)


@pytest.mark.parametrize("build", BOTH_ORDERS)
def test_a_coarse_scan_enters_its_level_and_is_predicted_on_both_grids(build):
    net = OneSided()
    half = torch.nn.functional.avg_pool3d(RAMP, 2)
    predictions = build()(scan(half.flip(2), 2.0), net)
    assert net.calls == [(2, 2), (1, 1), (2, 1)]
    assert predictions["pred"].shape == (1, 2, 16, 16, 16) and predictions["pred_fine"].shape == (1, 2, 32, 32, 32)
    expected = MultiLevelInferer(base(), 2, unchanged)(scan(half, 2.0), OneSided())
    for key, logits in predictions.items():
        torch.testing.assert_close(logits.as_tensor().flip(2), expected[key].as_tensor())


@pytest.mark.parametrize("build", BOTH_ORDERS)
def test_the_box_of_the_foreground_is_mirrored_as_well(build):
    """A ramp in an empty scan, not in its middle: around it background is predicted, on the side where it is empty."""
    image = torch.zeros(1, 1, 40, 32, 32)
    image[:, :, 2:34] = RAMP.flip(2)
    predictions = build(crop_foreground=True)(scan(image), OneSided())
    logits = predictions["pred"].as_tensor()
    assert predictions["pred"].meta["side"] == "right"
    certain = logits[0, 0] == 20
    assert certain[:2].all() and certain[34:].all() and not certain[2:34].any()


@pytest.mark.parametrize("build", BOTH_ORDERS)
def test_the_route_is_decided_once(build, monkeypatch):
    calls, route = [], ResolutionLevels.route
    monkeypatch.setattr(ResolutionLevels, "route", lambda levels, image: calls.append(1) or route(levels, image))
    build()(scan(RAMP), OneSided())
    assert calls == [1]


@pytest.mark.parametrize("wrapper", [MirrorInferer, MultiLevelInferer])
def test_only_an_inferer_that_routes_can_be_wrapped(wrapper):
    with pytest.raises(ValueError, match="inferer must be a RoutingInferer, got ResolutionLevels"):
        wrapper(LEVELS)
