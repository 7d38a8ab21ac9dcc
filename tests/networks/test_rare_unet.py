import copy

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from rare_unet_networks.networks import GatewayBlock, Prediction, PyramidOutput, RAREUNet, SubpixelHead

SMALL = dict(in_channels=1, out_channels=3, channels=(4, 8, 12, 16))
# kwargs, level, input size, output size
CASES = [
    (dict(spatial_dims=3, **SMALL), 0, (2, 1, 16, 32, 16), (2, 3, 16, 32, 16)),
    (dict(spatial_dims=3, **SMALL), 1, (2, 1, 8, 16, 8), (2, 3, 8, 16, 8)),
    (dict(spatial_dims=3, **SMALL), 2, (2, 1, 4, 8, 4), (2, 3, 4, 8, 4)),
    (dict(spatial_dims=2, **SMALL), 0, (1, 1, 32, 16), (1, 3, 32, 16)),
    (dict(spatial_dims=2, **SMALL), 2, (1, 1, 8, 4), (1, 3, 8, 4)),
    (dict(spatial_dims=2, in_channels=4, out_channels=2, channels=(4, 8, 8)), 1, (1, 4, 8, 8), (1, 2, 8, 8)),
    (dict(spatial_dims=3, upsample="nontrainable", **SMALL), 0, (1, 1, 16, 16, 16), (1, 3, 16, 16, 16)),
    (dict(spatial_dims=3, upsample="pixelshuffle", **SMALL), 1, (1, 1, 8, 8, 8), (1, 3, 8, 8, 8)),
    (dict(spatial_dims=2, act="relu", norm="batch", dropout=0.2, **SMALL), 1, (2, 1, 8, 8), (2, 3, 8, 8)),
    (dict(spatial_dims=2, in_channels=1, out_channels=2, channels=(2,) * 7), 5, (1, 1, 4, 4), (1, 2, 4, 4)),
    (dict(spatial_dims=2, stage_convs=1, decoder_convs=2, gate_convs=3, **SMALL), 1, (1, 1, 8, 8), (1, 3, 8, 8)),
    (dict(spatial_dims=2, num_gateways=1, **SMALL), 1, (1, 1, 8, 8), (1, 3, 8, 8)),
]
ILL_CASES = [
    (dict(spatial_dims=1), "spatial_dims must be 2 or 3"),
    (dict(channels=(4,)), "channels must have at least 2 entries"),
    (dict(num_gateways=-1), "num_gateways must be 0 to 2"),
    (dict(num_gateways=3), "num_gateways must be 0 to 2"),
    (dict(gate_convs=0), "num_convs must be at least 1"),
    (dict(fine_convs=1, fine_channels=(4,)), "fine_channels must be 2 numbers, one per level above 0"),
]


def leaves_run(net, x, level):
    """The leaf modules with parameters that a forward pass of a level runs."""
    used = set()
    leaves = [m for m in net.modules() if not list(m.children()) and list(m.parameters())]
    hooks = [m.register_forward_hook(lambda m, i, o: used.add(m)) for m in leaves]
    with torch.no_grad():
        net(x, level=level)
    for hook in hooks:
        hook.remove()
    return used


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return RAREUNet(spatial_dims=3, **SMALL).eval()


def pyramid(num_levels=3, size=(16, 16, 16)):
    torch.manual_seed(1)
    return [torch.rand(1, 1, *(n >> d for n in size)) for d in range(num_levels)]


@pytest.mark.parametrize("kwargs, level, input_shape, expected", CASES)
def test_logits_lie_on_the_grid_of_the_input(kwargs, level, input_shape, expected):
    net = RAREUNet(**kwargs).eval()
    with torch.no_grad():
        assert net(torch.rand(input_shape), level=level).shape == expected


@pytest.mark.parametrize("kwargs, match", ILL_CASES)
def test_ill_arguments_are_refused(kwargs, match):
    with pytest.raises(ValueError, match=match):
        RAREUNet(**{"spatial_dims": 3, **SMALL, **kwargs})


def test_ill_inputs_are_refused(net):
    with pytest.raises(ValueError, match="level must be 0 to 2, got 3"):
        net(torch.rand(1, 1, 16, 16, 16), level=3)
    with pytest.raises(ValueError, match="divisible by 8"):
        net(torch.rand(1, 1, 16, 16, 12))
    with pytest.raises(ValueError, match="1/2 as large as that of level 0"):
        net([torch.rand(1, 1, 16, 16, 16), torch.rand(1, 1, 16, 16, 16)])
    with pytest.raises(ValueError, match="levels must name 2 ascending levels"):
        net(pyramid(2), levels=[1, 0])


def test_the_authors_tumour_network_has_the_published_parameters_on_each_path():
    with torch.device("meta"):
        net = RAREUNet(3, 4, 4, channels=(32, 64, 128, 256, 320, 320), num_gateways=3, gate_convs=4, dropout=0.1).eval()
        paths = [leaves_run(net, torch.empty(1, 4, 32 >> d, 32 >> d, 64 >> d), d) for d in range(4)]
    counts = [sum(p.numel() for m in path for p in m.parameters()) for path in paths]
    assert counts == [30_398_660, 30_429_956, 30_326_276, 29_897_732]


def test_the_hippocampus_network_has_the_published_size():
    net = RAREUNet(3, 1, 3).eval()
    assert sum(p.numel() for m in leaves_run(net, torch.rand(1, 1, 32, 16, 16), 0) for p in m.parameters()) == 5_886_531


def test_a_level_runs_its_own_modules_only_and_costs_less(net):
    names = {m: name for name, m in net.named_modules()}
    flops = []
    for level, x in enumerate(pyramid()):
        run = {names[m].split(".conv")[0].split(".adn")[0] for m in leaves_run(net, x, level)}
        tops = {".".join(name.split(".")[:2]) for name in run}
        # Three decoder stages, deepest first: level d runs the first 3 - d of them.
        expected = {f"encoder.{i}" for i in range(level + 1 if level else 0, 4)} | {f"heads.{level}"}
        expected |= {f"{kind}.{i}" for kind in ("upsamples", "decoder") for i in range(3 - level)}
        expected |= {f"gateways.{level - 1}"} if level else set()
        assert tops == expected
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net(x, level=level)
        flops.append(counter.get_total_flops())
    assert flops[0] > 2 * flops[1] > 4 * flops[2]


def test_training_call_returns_what_the_single_paths_return(net):
    images = pyramid()
    with torch.no_grad():
        output = net(images)
        assert isinstance(output, PyramidOutput)
        logits, features, full = output
        for level, image in enumerate(images):
            torch.testing.assert_close(logits[level], net(image, level=level))
    assert [g.shape for g, _ in features] == [(1, 8, 8, 8, 8), (1, 12, 4, 4, 4)]
    assert all(g.shape == e.shape for g, e in features) and full == []


def test_encoder_features_are_those_before_pooling_on_the_path_of_level_0(net):
    images = pyramid()
    with torch.no_grad():
        _, features, _ = net(images)
        first = net.encoder[0](images[0])
        torch.testing.assert_close(features[0][1], net.encoder[1](torch.nn.functional.max_pool3d(first, 2)))
        torch.testing.assert_close(features[0][0], net.gateways[0](images[1]))


def test_levels_chooses_the_active_levels(net):
    images = pyramid()
    with torch.no_grad():
        logits, features, _ = net([images[0], images[2]], levels=[0, 2])
        assert [y.shape[2] for y in logits] == [16, 4] and len(features) == 1
        assert net(images[1:], levels=[1, 2])[1] == []


@pytest.fixture(scope="module")
def full_net():
    torch.manual_seed(0)
    return RAREUNet(spatial_dims=3, fine_convs=1, **SMALL).eval()


@pytest.mark.parametrize("level", [0, 1, 2])
def test_full_prediction_lies_on_the_level_0_grid_and_the_native_one_does_not_depend_on_it(net, full_net, level):
    image = pyramid()[level]
    with torch.no_grad():
        assert full_net(image, level=level, output="fine").shape == (1, 3, 16, 16, 16)
        native = full_net(image, level=level)
        assert native.shape == (1, 3, *image.shape[2:])
        plain = RAREUNet(spatial_dims=3, **SMALL).eval()
        plain.load_state_dict(full_net.state_dict(), strict=False)
        torch.testing.assert_close(native, plain(image, level=level))


def test_training_call_returns_the_full_predictions_of_the_coarse_levels(full_net):
    images = pyramid()
    with torch.no_grad():
        full = full_net(images)[2]
        assert len(full) == 2
        for level in (1, 2):
            torch.testing.assert_close(full[level - 1], full_net(images[level], level=level, output="fine"))
        assert len(full_net(images[2:], levels=[2])[2]) == 1


def test_a_new_sub_pixel_head_predicts_the_same_in_all_fine_voxels_of_a_coarse_one():
    head = SubpixelHead(spatial_dims=3, in_channels=4, out_channels=3, scale=4)
    y = head(torch.rand(2, 4, 4, 2, 3))
    assert y.shape == (2, 3, 16, 8, 12)
    coarse = y[:, :, ::4, ::4, ::4]
    for axis in (2, 3, 4):
        coarse = coarse.repeat_interleave(4, dim=axis)
    torch.testing.assert_close(y, coarse)
    assert float(y.detach().std()) > 0


def test_each_full_head_has_its_own_hidden_channels():
    net = RAREUNet(spatial_dims=3, fine_convs=1, fine_channels=(5, 7), **SMALL)
    projections = [head.conv_block[1].conv for head in net.full_heads]
    # (hidden channels, 3 classes in each of the 2^3 or 4^3 fine voxels)
    assert [(p.in_channels, p.out_channels) for p in projections] == [(5, 24), (7, 192)]
    assert net(pyramid()[2], level=2, output="fine").shape == (1, 3, 16, 16, 16)


def test_output_must_be_one_the_network_has(net, full_net):
    with pytest.raises(ValueError, match="output must be 'scan' for a network without fine_convs"):
        net(pyramid()[1], level=1, output="fine")
    with pytest.raises(ValueError, match="output must be 'scan', 'fine' or 'both', got full"):
        full_net(pyramid()[1], level=1, output="full")


@pytest.mark.parametrize("level", [0, 1, 2])
def test_both_outputs_of_an_image_have_names(full_net, level):
    image = pyramid()[level]
    with torch.no_grad():
        both = full_net(image, level=level, output="both")
        assert isinstance(both, Prediction)
        torch.testing.assert_close(both.scan, full_net(image, level=level))
        torch.testing.assert_close(both.fine, full_net(image, level=level, output="fine"))


def test_divisor_is_the_least_size_of_an_axis_by_level(net):
    assert [net.divisor(level) for level in range(3)] == [8, 4, 2]  # 4 stages: 3 halvings from level 0
    with pytest.raises(ValueError, match="level must be 0 to 2, got -1"):
        net.divisor(-1)


def test_without_gateways_it_is_a_plain_unet(net):
    plain = RAREUNet(spatial_dims=3, num_gateways=0, **SMALL).eval()
    plain.load_state_dict({k: v for k, v in net.state_dict().items() if k in plain.state_dict()})
    with torch.no_grad():
        torch.testing.assert_close(plain(pyramid()[0]), net(pyramid()[0]))
    assert sum(p.numel() for p in plain.parameters()) == sum(
        p.numel() for m in leaves_run(net, pyramid()[0], 0) for p in m.parameters()
    )


def test_every_parameter_gets_a_gradient_from_one_training_call():
    net = RAREUNet(spatial_dims=3, fine_convs=1, **SMALL)
    logits, features, full = net(pyramid(size=(16, 16, 32)))
    (sum(y.square().mean() for y in logits + full) + sum((g - e).square().mean() for g, e in features)).backward()
    assert [n for n, p in net.named_parameters() if p.grad is None] == []


def test_state_dict_is_the_same_in_every_mode():
    net = RAREUNet(spatial_dims=2, **SMALL)
    before = list(net.state_dict())
    net.train()([torch.rand(1, 1, 16, 16), torch.rand(1, 1, 8, 8)])
    net.eval()(torch.rand(1, 1, 8, 8), level=1)
    assert list(net.state_dict()) == before == list(RAREUNet(spatial_dims=2, **SMALL).eval().state_dict())


def test_scripted_network_predicts_as_the_original_at_every_level(full_net, tmp_path):
    net = full_net
    torch.jit.save(torch.jit.script(net), tmp_path / "net.ts")
    scripted = torch.jit.load(tmp_path / "net.ts")
    with torch.no_grad():
        torch.testing.assert_close(scripted(pyramid()[0]), net(pyramid()[0]))
        for level, image in enumerate(pyramid()):
            torch.testing.assert_close(scripted(image, level), net(image, level))
            fine = net(image, level, output="fine")
            torch.testing.assert_close(scripted(image, level, None, "fine"), fine)
            both = scripted(image, level, None, "both")
            torch.testing.assert_close(both.scan, net(image, level))
            torch.testing.assert_close(both.fine, fine)
    with pytest.raises(Exception, match=r"spatial_size at level 1 must be divisible by 4, got \[8, 8, 6\]"):
        scripted(torch.rand(1, 1, 8, 8, 6), 1)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_exported_program_predicts_as_the_original(net, level):
    image = pyramid()[level]
    program = torch.export.export(net, (image,), {"level": level})
    with torch.no_grad():
        torch.testing.assert_close(program.module()(image, level=level), net(image, level=level))


def test_gateway_block_keeps_the_grid_and_deep_copies():
    block = GatewayBlock(spatial_dims=3, in_channels=1, out_channels=8, num_convs=4)
    assert len(block) == 4 and copy.deepcopy(block)(torch.rand(1, 1, 6, 4, 5)).shape == (1, 8, 6, 4, 5)


def test_checkpointing_gives_the_same_gradients_from_less_memory():
    def network(**more):
        torch.manual_seed(0)
        return RAREUNet(3, 1, 2, channels=(2, 4, 4), fine_convs=1, **more)

    pyramid = [torch.rand(1, 1, 16 >> d, 16 >> d, 16 >> d) for d in range(2)]

    def gradients(net):
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
            logits, _, full = net(pyramid)
        sum(y.square().sum() for y in [*logits, *full]).backward()
        return {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}, sum(kept)

    net = network(use_checkpoint=True)
    (expected, much), (result, little) = gradients(network()), gradients(net)
    assert little < much / 2 and result.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(result[name], expected[name])
    torch.jit.script(net.eval())(pyramid[0])
