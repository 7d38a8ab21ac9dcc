"""Per-axis pooling of docs/any_resolution.md: a thick axis is not pooled until the others meet it."""

import pytest
import torch

from rare_unet_networks.networks import RAREUNet

from .conftest import SCRIPTS, script


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return script("per_axis_pooling")


@pytest.fixture
def networks(module):
    arguments = dict(spatial_dims=3, in_channels=1, out_channels=3, channels=[2, 3, 4, 5, 6], fine_convs=1)
    networks = [network(**arguments).eval() for network in (module.PerAxisUNet, RAREUNet)]
    networks[1].load_state_dict(networks[0].state_dict(), strict=False)
    return networks


@pytest.mark.parametrize(("level", "size"), [(0, (16, 32, 16)), (1, (8, 16, 8)), (3, (2, 4, 4))])
def test_an_isotropic_scan_gets_the_logits_of_the_package(networks, level, size):
    x = torch.rand(2, 1, *size)
    logits, expected = (network(x, level=level, output="both") for network in networks)
    assert torch.equal(logits.scan, expected.scan) and torch.equal(logits.fine, expected.fine)


@pytest.mark.parametrize(
    ("spacing", "level", "size"),
    [((1, 1, 3), 1001, (16, 32, 8)), ((5, 1, 1), 1200, (8, 16, 32)), ((2, 5, 2), 1121, (8, 8, 16))],
)
def test_thick_axes_keep_their_voxels_until_the_others_meet_them(module, networks, spacing, level, size):
    levels = module.PerAxisLevels(4, spacing=(1, 1, 1), switch=(0.75, 0.85, 0.85))
    assert levels.level_of_spacing(spacing) == level and levels.padded_size(size, level) == size
    network = networks[0]
    _, features = network.run_path(torch.rand(1, 1, *size), level)
    assert features[-1].shape[2:] == tuple(n * s // 16 for n, s in zip(size, levels.scale(level)))
    logits = network(torch.rand(1, 1, *size), level=level, output="both")
    assert logits.scan.shape == (1, 3, *size)
    assert logits.fine.shape == (1, 3, *(n * s for n, s in zip(size, levels.scale(level))))


def test_a_thick_axis_gets_the_mean_of_the_two_voxels_that_enlarging_would_make(module):
    deconv = torch.nn.ConvTranspose3d(2, 3, 3, stride=2, padding=1, output_padding=1)
    x = torch.rand(1, 2, 4, 4, 1).expand(-1, -1, -1, -1, 6)  # constant along the axis, so all pairs but the last agree
    pairs = deconv(x).unflatten(-1, (6, 2)).mean(dim=-1)[..., :-1]
    assert torch.allclose(module.enlarge(deconv, x, (False, False, True))[..., :-1], pairs, atol=1e-6)
