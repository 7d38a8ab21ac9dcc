"""The mean of the predictions of a scan's own level and of coarser ones."""

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import NormalizeIntensityd
from torch.nn import functional as F

from rare_unet_networks.inferers.multi_level import MultiLevelInferer
from rare_unet_networks.inferers.routing import ResolutionRoutingInferer
from rare_unet_networks.levels import ResolutionLevels
from rare_unet_networks.networks import Prediction, RAREUNet

LEVELS = ResolutionLevels(num_levels=4, spatial_size=(32, 32, 32), spacing=(1.0, 1.0, 1.0))
# foreground's probability that the network below gives at each level
PROBABILITIES = (0.9, 0.5, 0.3, 0.1)


def unchanged(data):
    """A scaling that changes nothing."""
    return data


class Constant(torch.nn.Module):
    """Logits of ``PROBABILITIES`` wherever; remembers what it was given."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x, level=0, output="scan"):
        self.seen.append((level, x))
        p = torch.full((len(x), 1, *x.shape[2:]), PROBABILITIES[level])
        native = torch.cat([1 - p, p], dim=1).log()
        full = F.interpolate(native, scale_factor=2**level)
        return {"scan": native, "fine": full, "both": Prediction(native, full)}[output]


def base(**options):
    return ResolutionRoutingInferer(LEVELS, **options)


def scan(size, level=0):
    spacing = torch.tensor([*[2.0**level] * 3, 1.0])
    return MetaTensor(torch.rand(1, 1, *size) + 1, affine=torch.diag(spacing))


def probability(logits):
    return logits.as_tensor().softmax(dim=1)[0, 1]


# level of the scan, how many coarser ones, levels that predict, the mean of their probabilities
CASES = [
    (0, 0, [0], 0.9),
    (0, 1, [0, 1], 0.7),
    (0, 3, [0, 1, 2, 3], 0.45),
    (2, 3, [2, 3], 0.2),
    (3, 1, [3], 0.1),
]


@pytest.mark.parametrize("size", [(32, 32, 32), (21, 18, 19)])
@pytest.mark.parametrize("level, extra_levels, levels, mean", CASES)
def test_the_prediction_is_the_mean_of_the_levels_probabilities_on_both_grids(level, extra_levels, levels, mean, size):
    net, image = Constant(), scan(size, level)
    found = MultiLevelInferer(base(output="both"), scaling=unchanged, extra_levels=extra_levels)(image, net)
    assert [d for d, _ in net.seen] == levels
    assert found["pred"].shape == (1, 2, *size) and torch.equal(found["pred"].affine, image.affine)
    assert found["pred_fine"].shape == (1, 2, *(n * 2**level for n in size))
    for logits in found.values():
        torch.testing.assert_close(probability(logits), torch.full(logits.shape[2:], mean), atol=1e-5, rtol=0)


@pytest.mark.parametrize("output", ["scan", "fine"])
def test_one_grid_alone_is_predicted_as_well(output):
    found = MultiLevelInferer(base(output=output), scaling=unchanged, extra_levels=1)(
        scan((9, 10, 11), level=1), Constant()
    )
    size = (9, 10, 11) if output == "scan" else (18, 20, 22)
    torch.testing.assert_close(probability(found), torch.full(size, 0.4), atol=1e-5, rtol=0)


def test_coarser_levels_see_means_of_blocks_above_the_background_and_on_the_scans_scale():
    """Along one axis 0 (background), 3, 5, 9, 5, 3: above the lowest 0 0, 2 6, 2 0; blocks of two have 0, 4, 1."""
    image = torch.zeros(1, 1, 6, 16, 16)
    image[0, 0] = torch.tensor([0.0, 3.0, 5.0, 9.0, 5.0, 3.0])[:, None, None]
    net = Constant()
    MultiLevelInferer(base(), extra_levels=1, scaling=lambda d: {"image": 10 * d["image"]})(MetaTensor(image), net)
    level, coarse = net.seen[1]
    profile = coarse[0, 0, :, 4, 4]
    assert level == 1 and profile[profile.nonzero()].flatten().tolist() == [40, 10]


def test_a_coarser_prediction_lies_at_its_place():
    """A bright block at an odd place of a grid of odd size is found by a threshold at the levels below."""

    def net(x, level=0, output="scan"):
        # Level 0 has no opinion, so that the coarser ones decide.
        logits = (20 if level else 0) * torch.cat([0.5 - x, x - 0.5], dim=1)
        full = F.interpolate(logits, scale_factor=2**level)
        return {"scan": logits, "fine": full, "both": Prediction(logits, full)}[output]

    image = scan((21, 24, 23)) * 0
    image[..., 5:13, 8:16, 3:11] = 1
    image[..., 0, 0, 0] = 1e-3  # what is lowest of the foreground
    for extra_levels in range(1, 4):
        found = MultiLevelInferer(base(), scaling=unchanged, extra_levels=extra_levels)(image, net)[0].argmax(dim=0)
        centre = (found > 0).nonzero().double().mean(dim=0)
        assert (centre - torch.tensor([8.5, 11.5, 6.5])).abs().max() <= 0.51, (extra_levels, centre)


def test_with_a_network_it_differs_from_one_level_alone_and_keeps_what_surrounds_the_foreground():
    torch.manual_seed(0)
    net = RAREUNet(3, 2, 3, channels=(4, 4, 4, 4, 4), fine_convs=1).eval()
    image = MetaTensor(torch.zeros(1, 2, 40, 40, 40))
    image[..., 6:30, 8:36, 5:35] = torch.randn(1, 2, 24, 28, 30)
    options = dict(output="both", crop_foreground=True)
    with torch.no_grad():
        one = ResolutionRoutingInferer(LEVELS, **options)(image, net)
        same = MultiLevelInferer(base(**options), scaling=unchanged)(image, net)
        several = MultiLevelInferer(base(**options), scaling=unchanged, extra_levels=3)(image, net)
    assert all(torch.equal(one[key], same[key]) for key in one)
    inside = (slice(None), slice(None), slice(6, 30), slice(8, 36), slice(5, 35))
    assert not torch.allclose(one["pred"].softmax(1)[inside], several["pred"].softmax(1)[inside], atol=0.01)
    around = torch.ones(40, 40, 40, dtype=torch.bool)
    around[inside[2:]] = False
    assert bool((several["pred"][0, 0][around] == 20).all())


def test_a_channel_without_foreground_stays_empty():
    net = Constant()
    image = torch.zeros(1, 2, 8, 8, 8)
    image[:, 0] = torch.rand(8, 8, 8) + 1
    MultiLevelInferer(base(), scaling=unchanged, extra_levels=1)(MetaTensor(image), net)
    assert torch.isfinite(net.seen[1][1]).all() and int(net.seen[1][1][:, 1].count_nonzero()) == 0


def test_the_network_gets_plain_tensors_from_the_scaling_of_the_bundles():
    net, image = Constant(), scan((16, 16, 16))
    scaling = NormalizeIntensityd("image", nonzero=True, channel_wise=True)
    MultiLevelInferer(base(), extra_levels=1, scaling=scaling)(image, net)
    assert [type(x) for _, x in net.seen] == [torch.Tensor, torch.Tensor]
    coarse = net.seen[1][1]
    assert float(coarse[coarse != 0].std(correction=0)) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("cval, scaling", [(0.0, None), (-1.0, unchanged)])
def test_extra_levels_needs_a_scaling_and_a_background_of_0(cval, scaling):
    with pytest.raises(ValueError, match=r"extra_levels needs scaling and cval 0, got "):
        MultiLevelInferer(base(cval=cval), extra_levels=1, scaling=scaling)


def test_extra_levels_must_not_be_negative():
    with pytest.raises(ValueError, match=r"extra_levels must be a number of levels, 0 or more, got -1\."):
        MultiLevelInferer(base(), extra_levels=-1)


@pytest.mark.parametrize("output, level, agreement", [
    ("both", 0, 2 * 0.9 * 0.5 / (0.9**2 + 0.5**2)), ("both", 2, 2 * 0.3 * 0.1 / (0.3**2 + 0.1**2)),
    ("fine", 2, 2 * 0.3 * 0.1 / (0.3**2 + 0.1**2)), ("both", 3, None),
])  # fmt: skip
def test_the_agreement_with_the_next_coarser_level_is_noted_without_a_further_prediction(output, level, agreement):
    network = Constant()
    inferer = MultiLevelInferer(base(output=output), 3, unchanged, agreement=True)
    prediction = inferer(scan((32, 32, 32), level), network)
    prediction = prediction["pred"] if output == "both" else prediction
    assert [seen for seen, _ in network.seen] == list(range(level, 4))
    if agreement is None:
        assert "trust" not in prediction.meta
    else:
        assert prediction.meta["trust"].features[""]["agreement"] == pytest.approx([agreement], rel=1e-5)
