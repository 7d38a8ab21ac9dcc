import pytest
import torch

from rare_unet_networks.baselines import DecoderHead, DecoderHeadRAREUNet
from rare_unet_networks.networks import RAREUNet

SMALL = dict(spatial_dims=3, in_channels=1, out_channels=3, channels=(4, 6, 8, 8))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return DecoderHeadRAREUNet(**SMALL).eval()


@pytest.mark.parametrize("level", [0, 1, 2])
def test_every_level_predicts_at_level_0_and_natively_as_without_such_heads(net, level):
    image = torch.rand(1, 1, *[16 >> level] * 3)
    with torch.no_grad():
        native = net(image, level=level)
        assert net(image, level=level, output="fine").shape == (1, 3, 16, 16, 16)
        plain = RAREUNet(**SMALL).eval()
        plain.load_state_dict(net.state_dict(), strict=False)
        torch.testing.assert_close(native, plain(image, level=level))


def test_the_heads_are_decoders_and_the_training_call_returns_their_predictions(net):
    assert [type(head) for head in net.full_heads] == [DecoderHead, DecoderHead]
    images = [torch.rand(1, 1, *[16 >> level] * 3) for level in range(3)]
    with torch.no_grad():
        full = net(images)[2]
        for level in (1, 2):
            torch.testing.assert_close(full[level - 1], net(images[level], level=level, output="fine"))


def test_it_is_scripted_as_the_other_network(net):
    scripted, image = torch.jit.script(net), torch.rand(1, 1, 8, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(scripted(image, 1, None, "fine"), net(image, level=1, output="fine"))


@pytest.mark.parametrize("options, message", [
    (dict(fine_channels=(4, 8)), r"fine_channels must be None for decoder heads, got \(4, 8\)"),
    (dict(fine_convs=0), "fine_convs must be at least 1, got 0"),
])  # fmt: skip
def test_arguments_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DecoderHeadRAREUNet(**SMALL, **options)
