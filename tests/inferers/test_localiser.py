import pytest
import torch
from monai.data import MetaTensor

from rare_unet_networks.inferers import Localiser
from rare_unet_networks.levels import ResolutionLevels
from rare_unet_networks.networks import RAREUNet

LEVELS = ResolutionLevels(2, spacing=[4.0, 4.0, 4.0], num_stages=3)
SIZE = (96, 80, 64)  # mm
PLACES = torch.tensor([[30.0, 50, 30], [30, 30, 34], [66, 50, 30], [66, 30, 34]])


class FourBlobs(torch.nn.Module):
    """Each landmark is a voxel of another intensity; at level 1 all are ``shift`` mm behind."""

    def __init__(self, absent=(), shift=0.0):
        super().__init__()
        self.absent, self.shift, self.levels = absent, shift, []

    def forward(self, x, level=0, output="scan"):
        assert output == "fine"
        self.levels.append(level)
        size = [n * 2**level for n in x.shape[2:]]
        y = torch.full((1, 4, *size), -20.0)
        # The padding is symmetric: 24×20×16 voxels of 4 mm, or twice as few of 8 mm, padded to multiples of 4 and 2.
        before = [(n * 4 - e) / 2 for n, e in zip(size, SIZE)]
        for channel, place in enumerate(PLACES):
            if channel not in self.absent:
                at = [int((p + b) // 4) for p, b in zip(place.tolist(), before)]
                at[1] -= round(self.shift / 4) if level else 0
                y[(0, channel, *at)] = 20.0
        return y


def head(spacing):
    size = [round(n / s) for n, s in zip(SIZE, spacing)]
    affine = torch.diag(torch.tensor([*spacing, 1.0]))
    return MetaTensor(torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(0)), affine=affine)


@pytest.mark.parametrize(
    "spacing, levels",
    [((1.0, 1.0, 1.0), [0, 1]), ((2.0, 2.0, 4.0), [0, 1]), ((4.0, 4.0, 4.0), [0, 1]), ((8.0, 8.0, 8.0), [1])],
)
def test_landmarks_are_in_mm_from_the_first_voxel(spacing, levels):
    network = FourBlobs()
    found = Localiser(network, None, LEVELS)(head(spacing))
    assert network.levels == levels and found.doubts == []
    # The centre of the 4 mm voxel that holds the place, from the centre of the scan's first voxel.
    expected = (PLACES // 4) * 4 + 2 - torch.tensor(spacing) / 2
    torch.testing.assert_close(found.points, expected.double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.confidence, torch.ones(4).double(), atol=1e-4, rtol=0)


def test_what_is_not_in_the_scan_has_no_place():
    found = Localiser(FourBlobs(absent=(2, 3)), None, LEVELS)(head((4.0, 4.0, 4.0)))
    assert found.points.isnan().all(dim=1).tolist() == [False, False, True, True]
    assert found.sides() == ["left"] and float(found.confidence[2:].max()) < 0.01


def test_levels_that_differ_are_a_doubt():
    found = Localiser(FourBlobs(shift=12.0), None, LEVELS)(head((4.0, 4.0, 4.0)))
    assert found.doubts == ["two resolutions place them 12 mm apart"]
    assert Localiser(FourBlobs(shift=4.0), None, LEVELS)(head((4.0, 4.0, 4.0))).doubts == []


def test_weights_are_loaded_with_the_first_head(tmp_path):
    network = RAREUNet(3, 1, 4, (2, 4, 4), num_gateways=1, fine_convs=1)
    weights = {name: torch.full_like(value, 0.01).half() for name, value in network.state_dict().items()}
    torch.save(weights, tmp_path / "localiser.pt")
    locate = Localiser(network, tmp_path / "localiser.pt", LEVELS)
    assert not torch.equal(network.state_dict()["heads.0.conv.bias"], weights["heads.0.conv.bias"].float())
    locate(head((4.0, 4.0, 4.0)))
    assert torch.equal(network.state_dict()["heads.0.conv.bias"], weights["heads.0.conv.bias"].float())
    with pytest.raises(ValueError, match=r"missing.pt: there is no such file"):
        Localiser(network, tmp_path / "missing.pt", LEVELS)(head((4.0, 4.0, 4.0)))
