"""The agreement of a prediction with a second one, by networks whose answers are known."""

import pytest
import torch
from monai.data import MetaTensor
from torch.nn import functional as F

from rare_unet_networks.inferers import MirrorInferer, ResolutionRoutingInferer, TrustInferer
from rare_unet_networks.levels import ResolutionLevels
from rare_unet_networks.networks import Prediction

LEVELS = ResolutionLevels(num_levels=3, spatial_size=(32, 32, 32), spacing=(1.0, 1.0, 1.0))
PROBABILITIES = (0.9, 0.5, 0.3)  # of the foreground, at each level


def unchanged(data):
    return data


class Network(torch.nn.Module):
    """The same probability everywhere, but for a marked side; notes levels and sizes."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, x, level=0, output="scan"):
        self.calls.append((level, tuple(x.shape)))
        p = torch.full((len(x), 1, *x.shape[2:]), PROBABILITIES[level])
        # A scan whose first half is brighter is predicted with certainty.
        half = x.shape[2] // 2
        is_left = x[:, :, :half].amax(dim=(1, 2, 3, 4)) > x[:, :, half:].amax(dim=(1, 2, 3, 4))
        p[is_left] = 0.999
        native = torch.cat([1 - p, p], dim=1).log()
        fine = F.interpolate(native, scale_factor=2**level)
        return {"scan": native, "fine": fine, "both": Prediction(native, fine)}[output]


def scan(level, size=(16, 16, 16)):
    return MetaTensor(torch.ones(1, 1, *size), affine=torch.diag(torch.tensor([*[2.0**level] * 3, 1.0])))


def soft_dice(p, q):
    return 2 * p * q / (p * p + q * q)


CASES = [(0, "true", [0, 1], (0.9, 0.5)), (1, "true", [1, 2], (0.5, 0.3)), (2, "true", [2, 2], (0.3, 0.3))]
CASES += [(0, "full", [0, 0, 1], (0.9, 0.5)), (2, "full", [2, 2], (0.3, 0.3)), (0, "false", [0], None)]


@pytest.mark.parametrize("output", ["both", "fine", "scan"])
@pytest.mark.parametrize("level, mode, levels, pair", CASES)
def test_the_second_prediction_is_that_of_the_next_coarser_level(level, mode, levels, pair, output):
    network, plain = Network(), ResolutionRoutingInferer(LEVELS, output=output)
    x = scan(level, (17, 15, 16))
    expected = plain(x, Network())
    got = TrustInferer(plain, mode, unchanged)(x, network)
    assert sorted(call[0] for call in network.calls) == levels
    if output == "both":
        expected, got = expected["pred_fine"], got["pred_fine"]
    torch.testing.assert_close(got.as_tensor(), expected.as_tensor())  # it only judges
    if pair is None:
        assert "trust" not in got.meta
        return
    features = got.meta["trust"].features[""]
    assert features["agreement"] == pytest.approx([soft_dice(*pair)], rel=1e-4)
    assert features["level"] == level and ("stability" in features) == (mode == "full" or level == 2)
    # Expected volume: the whole scan, of (2^level mm)³ voxels, with the probability of its level.
    assert features["volume"] == pytest.approx([17 * 15 * 16 * 8**level * PROBABILITIES[level]], rel=1e-4)


def test_the_coarse_scan_costs_an_eighth():
    network = Network()
    TrustInferer(ResolutionRoutingInferer(LEVELS, output="both"), True, unchanged)(scan(0, (32, 32, 32)), network)
    assert network.calls == [(0, (1, 1, 32, 32, 32)), (1, (1, 1, 16, 16, 16))]


@pytest.mark.parametrize("size", [(8, 8, 8), (8, 8, 1)])
def test_a_shifted_scan_costs_what_the_scan_costs_and_lies_where_it_lies(size):
    class Position(Network):
        """Foreground where the image is bright, so that a shift that is not undone is seen."""

        def forward(self, x, level=0, output="scan"):
            self.calls.append((level, tuple(x.shape)))
            p = 0.1 + 0.8 * x
            logits = torch.cat([1 - p, p], dim=1).log()
            fine = F.interpolate(logits, scale_factor=2**level)
            return {"scan": logits, "fine": fine, "both": Prediction(logits, fine)}[output]

    network, x = Position(), scan(2, size)
    x[...] = 0
    x[:, :, 3:5, 2:6] = 1
    prediction = TrustInferer(ResolutionRoutingInferer(LEVELS, output="both"), True, unchanged)(x, network)
    assert len(network.calls) == 2 and network.calls[0] == network.calls[1]
    assert prediction["pred_fine"].meta["trust"].features[""]["agreement"] == pytest.approx([1.0])


@pytest.mark.parametrize("level, calls", [(0, [2, 0, 1]), (1, [2, 1, 2]), (2, [2, 2])])
def test_the_side_is_chosen_first_and_the_chosen_one_is_judged(level, calls):
    x = scan(level)
    x[:, :, 8:] = 2  # bright on the right: its mirror image is predicted with certainty
    network = Network()
    inferer = MirrorInferer(TrustInferer(ResolutionRoutingInferer(LEVELS, output="both"), True, unchanged), "auto", 0,
                            unchanged)  # fmt: skip
    prediction = inferer(x, network)["pred_fine"]
    assert [call[0] for call in network.calls] == calls
    assert prediction.meta["side"] == "right"
    assert prediction.meta["trust"].features[""]["confidence"] == pytest.approx([2 * 0.999 / 1.999], rel=1e-4)


def test_trust_needs_the_scaling():
    plain = ResolutionRoutingInferer(LEVELS)
    with pytest.raises(ValueError, match=r"trust needs scaling, the transform that scaled .*, got None"):
        TrustInferer(plain, "full")
    assert TrustInferer(plain, False).mode == "false"


@pytest.mark.parametrize("level, keys", [(0, {"pred", "pred_fine"}), (1, {"pred_fine"}), (2, {"pred_fine"})])
def test_deep_levels_return_the_fine_prediction_alone_through_all_wrappers(level, keys):
    plain = ResolutionRoutingInferer(LEVELS, output="both", fine_from=1)
    inferer = MirrorInferer(TrustInferer(plain, True, unchanged), "left", 0, unchanged)
    prediction = inferer(scan(level), Network())
    assert set(prediction) == keys
    assert prediction["pred_fine"].shape[2:] == tuple([16 * 2**level] * 3)


def test_fine_from_is_a_level_above_0():
    with pytest.raises(ValueError, match=r"fine_from must be a level above 0, got 0"):
        ResolutionRoutingInferer(LEVELS, output="both", fine_from=0)
