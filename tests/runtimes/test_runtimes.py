"""Exports of a network: every runtime at every level, and what is refused. Programs of the bundles: tests/bundles."""

import shutil
import sys
from importlib.util import find_spec

import pytest
import torch

from rare_unet_networks.networks import RAREUNet
from rare_unet_networks.runtimes import export, load
from rare_unet_networks.runtimes.export import PACKAGES, LevelPath, _check, export_runtimes
from rare_unet_networks.runtimes.load import LevelPrograms, describe, load_runtime
from rare_unet_networks.utils import sha256

FEW = dict(stage_convs=1, gate_convs=1)  # to export quickly
KWARGS = dict(
    spatial_dims=3, in_channels=2, out_channels=3, channels=(2, 4, 4, 6), fine_convs=1, fine_channels=(4, 4), **FEW
)
FLAT = dict(spatial_dims=2, in_channels=2, out_channels=3, channels=(2, 2, 2), **FEW)


def runtime_or_skip(runtime):
    """A parameter that is skipped, with its reason, where the runtime's packages are absent."""
    absent = [p for p in PACKAGES.get(runtime, ()) if find_spec(p) is None]
    reason = f"runtime {runtime} needs {', '.join(absent)}: pip install '.[{runtime}]'"
    return pytest.param(runtime, marks=pytest.mark.skipif(bool(absent), reason=reason))


RUNTIMES = [runtime_or_skip(runtime) for runtime in ("torchscript", "onnx", "openvino")]


def weights_of(tmp_path, seed=0, name="model.pt", kwargs=KWARGS):
    """A network of random weights, and the checkpoint that holds them."""
    torch.manual_seed(seed)
    network = RAREUNet(**kwargs).eval()
    torch.save(network.state_dict(), tmp_path / name)
    return network, tmp_path / name


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Exports to a runtime once: the network, what was exported, the checkpoint and the folder."""
    made = {}

    def export(runtime):
        if runtime not in made:
            folder = tmp_path_factory.mktemp(runtime)
            network, checkpoint = weights_of(folder)
            export_runtimes(runtime, RAREUNet(**KWARGS), folder / "exports", checkpoint)
            found = load_runtime(runtime, RAREUNet(**KWARGS), folder / "exports", checkpoint).eval()
            made[runtime] = network, found, checkpoint, folder / "exports"
        return made[runtime]

    return export


def test_digests_of_an_export_are_those_of_the_records():
    assert export.sha256 is load.sha256 is sha256


@pytest.mark.parametrize("blocks", [(1, 3, 1), (3, 2, 2)])
@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_runtime_predicts_as_eager_at_every_level_and_size(exported, runtime, level, blocks):
    network, found, _, _ = exported(runtime)
    torch.manual_seed(level)
    x = torch.rand(2, 2, *(n * 2 ** (3 - level) for n in blocks))  # a batch of two, although the files take one
    with torch.no_grad():
        for output in ("scan", "fine"):
            prediction, expected = (net(x, level=level, output=output) for net in (found, network))
            torch.testing.assert_close(prediction, expected, atol=1e-4, rtol=1e-4)
        both = found(x, level=level, output="both")
        torch.testing.assert_close(both.scan, network(x, level=level), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(both.fine, network(x, level=level, output="fine"), atol=1e-4, rtol=1e-4)
    assert both.fine.shape[2:] == torch.Size(n * 2**level for n in x.shape[2:])


def programs_of(network, output="both"):
    """``LevelPrograms`` of a network whose programs are those that the exporters get."""
    paths = [LevelPath(network, level, output) for level in range(network.num_levels)]
    return LevelPrograms(paths, [network.divisor(p.level) for p in paths], [p.outputs for p in paths])


@pytest.mark.parametrize("output, outputs", [("both", ("scan", "fine")), ("scan", ("scan",)), ("fine", ("fine",))])
def test_a_program_computes_one_output_or_both(output, outputs):
    torch.manual_seed(0)
    network = RAREUNet(**KWARGS).eval()
    programs = programs_of(network, output)
    x = torch.rand(2, 2, 8, 8, 4)
    with torch.no_grad():
        assert [len(path(path.example(1, 1, 2))) for path in programs.programs] == [1, len(outputs), len(outputs)]
        for name in outputs:
            torch.testing.assert_close(programs(x, level=1, output=name), network(x, level=1, output=name))
        for name in ("scan", "fine"):  # at level 0 both are one
            torch.testing.assert_close(
                programs(torch.ones(1, 2, 8, 8, 16), output=name), network(torch.ones(1, 2, 8, 8, 16))
            )
        for name in {"scan", "fine", "both"} - {*outputs, output}:
            match = f"output must be '{output}', the only one of the exported programs, got '{name}'"
            with pytest.raises(ValueError, match=match):
                programs(x, level=1, output=name)


@pytest.mark.parametrize("runtime", [runtime_or_skip(runtime) for runtime in ("onnx", "openvino")])
@pytest.mark.parametrize("output, other", [("scan", "fine"), ("fine", "scan")])
def test_programs_of_one_output_are_exported_and_loaded(tmp_path, runtime, output, other):
    network, checkpoint = weights_of(tmp_path)
    export_runtimes(runtime, RAREUNet(**KWARGS), tmp_path, checkpoint, output=output)
    loaded = load_runtime(runtime, network, tmp_path, checkpoint)
    x = torch.rand(1, 2, 8, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(
            loaded(x, level=1, output=output), network(x, level=1, output=output), atol=1e-4, rtol=1e-4
        )
    with pytest.raises(ValueError, match=f"output must be '{output}', the only one of the exported programs"):
        loaded(x, level=1, output=other)


@pytest.mark.parametrize("kwargs, output, match", [
    (KWARGS, "full", r"output must be one of \('scan', 'fine', 'both'\), got 'full'"),
    (FLAT, "fine", "output must be 'scan' or 'both' for a network without fine_convs, got 'fine'"),
])  # fmt: skip
def test_an_output_that_the_network_lacks_is_not_exported(tmp_path, kwargs, output, match):
    network, checkpoint = weights_of(tmp_path, kwargs=kwargs)
    with pytest.raises(ValueError, match=match):
        export_runtimes("torchscript", network, tmp_path, checkpoint, output=output)
    assert not (tmp_path / "torchscript").exists()


def test_a_flat_network_without_full_heads_gives_native_logits_only():
    network = RAREUNet(**FLAT).eval()
    programs = programs_of(network)
    for level, size in ((0, (4, 8)), (0, (12, 8)), (1, (2, 4)), (1, (6, 4))):
        x = torch.rand(1, 2, *size)
        with torch.no_grad():
            torch.testing.assert_close(programs(x, level=level), network(x, level=level))
    with pytest.raises(ValueError, match="output must be 'scan', the only one of the exported programs, got 'fine'"):
        programs(x, level=1, output="fine")


CALLS = [
    (dict(level=3), (8, 8, 8), "level must be 0 to 2, got 3"),
    (dict(level=-1), (8, 8, 8), "level must be 0 to 2, got -1"),
    (dict(level=1), (8, 6, 8), "spatial_size at level 1 must be divisible by 4, got \\[8, 6, 8\\]"),
    (dict(output="full"), (8, 8, 8), r"output must be one of \('scan', 'fine', 'both'\), got 'full'"),
]


@pytest.mark.parametrize("kwargs, size, match", CALLS)
def test_an_export_refuses_what_the_network_refuses(kwargs, size, match):
    with pytest.raises(ValueError, match=match):
        programs_of(RAREUNet(**KWARGS).eval())(torch.rand(1, 2, *size), **kwargs)


def test_eager_is_the_network_itself_and_needs_no_files():
    network = RAREUNet(**KWARGS)
    assert load_runtime("eager", network, "/nowhere", "/nowhere/model.pt") is network


def test_an_export_of_other_weights_is_refused(exported, tmp_path):
    network, _, _, folder = exported("torchscript")
    _, other = weights_of(tmp_path, seed=1)
    with pytest.raises(ValueError, match=rf"{folder}/torchscript is not of the weights in {other}: .* --runtime"):
        load_runtime("torchscript", network, folder, other)


@pytest.mark.parametrize(
    "change", [lambda file: file.write_bytes(b"cut short"), lambda file: file.unlink()], ids=["changed", "missing"]
)
def test_an_export_that_is_not_whole_is_refused(exported, tmp_path, change):
    network, _, checkpoint, folder = exported("torchscript")
    shutil.copytree(folder, tmp_path / "exports")
    change(tmp_path / "exports/torchscript/network.ts")
    with pytest.raises(ValueError, match=r"is not as it was written \(network.ts\)"):
        load_runtime("torchscript", network, tmp_path / "exports", checkpoint)


def test_without_an_export_the_command_that_writes_it_is_named(tmp_path):
    network, checkpoint = weights_of(tmp_path)
    with pytest.raises(
        ValueError,
        match=r"export_dir must hold the network for runtime 'onnx'.*`run exporting .* --runtime onnx .*` writes it",
    ):
        load_runtime("onnx", network, tmp_path, checkpoint)


@pytest.mark.parametrize(
    "function, runtime, match",
    [
        (load_runtime, "tensorrt", r"runtime must be one of \('eager', .*\), got 'tensorrt'"),
        (export_runtimes, "tensorrt", r"runtime must be one of .*'all'\) to be exported, got 'tensorrt'"),
        (export_runtimes, "eager", r"runtime must be one of .*'all'\) to be exported, got 'eager'"),
    ],
)
def test_an_unknown_runtime_is_refused(tmp_path, function, runtime, match):
    with pytest.raises(ValueError, match=match):
        function(runtime, RAREUNet(**KWARGS), tmp_path, tmp_path / "model.pt")


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(exported, monkeypatch, tmp_path, runtime):
    message = rf"runtime '{runtime}' needs the package \w+ .*: pip install '.\[{runtime}\]'"
    for package in PACKAGES[runtime]:
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    network, _, checkpoint, folder = exported("torchscript")
    with pytest.raises(ModuleNotFoundError, match=message):
        export_runtimes(runtime, network, tmp_path, checkpoint)
    assert not (tmp_path / runtime).exists()
    shutil.copytree(folder / "torchscript", tmp_path / runtime)  # as if somebody else had made it
    with pytest.raises(ModuleNotFoundError, match=message):
        load_runtime(runtime, network, tmp_path, checkpoint)


def test_an_export_with_other_predictions_is_not_completed(tmp_path, monkeypatch):
    network, checkpoint = weights_of(tmp_path, kwargs=FLAT)
    other, _ = weights_of(tmp_path, seed=1, name="other.pt", kwargs=FLAT)
    export_runtimes("torchscript", network, tmp_path, checkpoint)
    script = torch.jit.script
    monkeypatch.setattr(torch.jit, "script", lambda network: script(other))
    with pytest.raises(
        RuntimeError, match=r"runtime 'torchscript' must give the logits of eager to 0\.001, at level 0 they differ"
    ):
        export_runtimes("torchscript", network, tmp_path, checkpoint)
    with pytest.raises(ValueError, match="export_dir must hold the network for runtime 'torchscript'"):
        load_runtime("torchscript", network, tmp_path, checkpoint)


def test_logits_that_are_no_numbers_are_no_small_difference():
    """The first prediction is right, those at the level 0 grid are not: NaN is neither above nor below the limit."""
    path = LevelPath(RAREUNet(**KWARGS).eval(), 1)

    def exported(image, level, output):
        logits = path.network(image, level=level, output=output)
        return logits * float("nan") if output == "fine" else logits

    with pytest.raises(RuntimeError, match=r"runtime 'onnx' must give the logits of eager to 0\.001, .* differ by nan"):
        _check("onnx", exported, path)


def test_an_export_of_another_network_with_the_same_weights_is_refused(exported):
    _, _, checkpoint, folder = exported("torchscript")
    other = RAREUNet(**KWARGS, act="TANH")
    assert other.state_dict().keys() == RAREUNet(**KWARGS).state_dict().keys()
    with pytest.raises(ValueError, match=r"torchscript is of another network, or of another version of its code"):
        load_runtime("torchscript", other, folder, checkpoint)


def test_an_export_of_another_version_of_the_package_is_refused(exported, monkeypatch):
    network, _, checkpoint, folder = exported("torchscript")
    monkeypatch.setattr("rare_unet_networks.__version__", "0.0.1")
    with pytest.raises(ValueError, match=r"torchscript is of another network, or of another version of its code: .*"):
        load_runtime("torchscript", network, folder, checkpoint)


@pytest.mark.parametrize("change, same", [
    (dict(act="TANH"), False), (dict(norm="BATCH"), False), (dict(channels=(2, 4, 4, 8)), False), ({}, True)
])  # fmt: skip
def test_a_network_is_described_by_its_arguments_and_not_by_its_weights(change, same):
    assert (describe(RAREUNet(**KWARGS)) == describe(RAREUNet(**{**KWARGS, **change}))) == same


def test_an_export_takes_weights_of_other_layouts_and_refuses_those_that_are_not_finite(tmp_path):
    state = RAREUNet(**FLAT).state_dict()
    torch.save({f"module.{name}": value for name, value in state.items()}, tmp_path / "wrapped.pt")
    network = RAREUNet(**FLAT)
    export_runtimes("torchscript", network, tmp_path / "exports", tmp_path / "wrapped.pt")
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    torch.save({**state, "heads.0.conv.bias": torch.full((3,), torch.nan)}, tmp_path / "nan.pt")
    with pytest.raises(ValueError, match=r"nan\.pt: 1 weights are NaN or infinite \(heads\.0\.conv\.bias\)"):
        export_runtimes("torchscript", RAREUNet(**FLAT), tmp_path / "others", tmp_path / "nan.pt")
    assert not (tmp_path / "others").exists()
