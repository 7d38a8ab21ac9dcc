"""What a step on labels of several resolutions trains."""

import pytest
import torch

from rare_unet_networks.losses import RAREUNetLoss
from rare_unet_networks.networks import RAREUNet

# Used by level 0 or for its grid alone; a scan that enters at gateway 1 leaves out the encoder's stages 0 and 1.
FINE = ("encoder.0.", "encoder.1.", "upsamples.3.", "decoder.3.", "heads.0.", "full_heads.")


@pytest.fixture
def network():
    torch.manual_seed(0)
    return RAREUNet(3, 1, 3, channels=(2, 4, 4, 4, 4), fine_convs=1)


def pyramid(members, first=0, size=32):
    """Images and labels of levels ``first`` to 3; ``members`` by level."""
    levels = range(first, 4)
    images = [torch.rand(members[d], 1, *[size >> d] * 3) for d in levels]
    return images, [(3 * torch.rand_like(x)).floor() for x in images]


def gradients(network, images, labels, **options):
    network.zero_grad(set_to_none=True)
    RAREUNetLoss()(network(images, **options), labels).backward()
    return {name: p.grad for name, p in network.named_parameters()}


def test_a_coarse_label_trains_neither_level_0_nor_the_heads_of_its_grid(network):
    found = gradients(network, *pyramid({1: 2, 2: 2, 3: 2}, first=1), levels=[1, 2, 3], num_fine=0)
    untrained = {name for name, grad in found.items() if grad is None}
    assert untrained == {name for name in found if name.startswith(FINE)}
    assert all(grad.abs().sum() > 0 for name, grad in found.items() if name.startswith(("gateways.", "heads.1.")))


def test_in_a_mixed_batch_the_1_mm_heads_see_the_fine_member_alone(network):
    """Their gradient is that of the fine label alone, whatever the second member and its labels are."""
    images, labels = pyramid({0: 1, 1: 2, 2: 2, 3: 2})
    mixed = gradients(network, images, labels, levels=[0, 1, 2, 3], num_fine=1)
    alone = gradients(network, [x[:1] for x in images], [x[:1] for x in labels], levels=[0, 1, 2, 3])
    for name in mixed:
        if name.startswith(("full_heads.", "heads.0.")):
            torch.testing.assert_close(mixed[name], alone[name])
    assert not torch.allclose(mixed["heads.1.conv.weight"], alone["heads.1.conv.weight"])


def test_gateways_are_held_consistent_for_the_members_with_a_level_0(network):
    images, _ = pyramid({0: 1, 1: 2, 2: 3, 3: 3})
    output = network(images, levels=[0, 1, 2, 3], num_fine=1)
    assert [len(x) for x in output.logits] == [1, 2, 3, 3]
    assert [len(x) for x in output.fine] == [1, 1, 1]
    assert [(len(g), len(e)) for g, e in output.features] == [(1, 1)] * 3
