"""Exports of a network: every engine at every level, and what is refused. Programs of the bundles: tests/bundles."""

import json
import shutil
import sys
from importlib.util import find_spec

import pytest
import torch

from rare_unet_networks.networks import RAREUNet
from rare_unet_networks.runtimes.export import PACKAGES, WRITERS, LevelPath, _check, export_engines
from rare_unet_networks.runtimes.load import with_engine

FEW = dict(stage_convs=1, gate_convs=1)  # to export quickly
KWARGS = dict(
    spatial_dims=3, in_channels=2, out_channels=3, channels=(2, 4, 4, 6), fine_convs=1, fine_channels=(4, 4), **FEW
)
FLAT = dict(spatial_dims=2, in_channels=2, out_channels=3, channels=(2, 2, 2), **FEW)


def engine_or_skip(engine):
    """A parameter that is skipped, with its reason, where the engine's packages are absent."""
    absent = [p for p in PACKAGES.get(engine, ()) if find_spec(p) is None]
    reason = f"engine {engine} needs {', '.join(absent)}: pip install '.[{engine}]'"
    return pytest.param(engine, marks=pytest.mark.skipif(bool(absent), reason=reason))


ENGINES = [engine_or_skip(engine) for engine in ("torchscript", "export", "onnx", "openvino")]


def weights_of(tmp_path, seed=0, name="model.pt", kwargs=KWARGS):
    """A network of random weights, and the checkpoint that holds them."""
    torch.manual_seed(seed)
    network = RAREUNet(**kwargs).eval()
    torch.save(network.state_dict(), tmp_path / name)
    return network, tmp_path / name


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Exports to an engine once: the network, what was exported, the checkpoint and the folder."""
    made = {}

    def export(engine):
        if engine not in made:
            folder = tmp_path_factory.mktemp(engine)
            network, checkpoint = weights_of(folder)
            export_engines(engine, RAREUNet(**KWARGS), folder / "exports", checkpoint)
            found = with_engine(engine, RAREUNet(**KWARGS), folder / "exports", checkpoint).eval()
            made[engine] = network, found, checkpoint, folder / "exports"
        return made[engine]

    return export


@pytest.mark.parametrize("blocks", [(1, 3, 1), (3, 2, 2)])
@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_answers_as_eager_at_every_level_and_size(exported, engine, level, blocks):
    network, found, _, _ = exported(engine)
    torch.manual_seed(level)
    x = torch.rand(2, 2, *(n * 2 ** (3 - level) for n in blocks))  # a batch of two, although the files take one
    with torch.no_grad():
        for output in ("scan", "fine"):
            answer, expected = (net(x, level=level, output=output) for net in (found, network))
            torch.testing.assert_close(answer, expected, atol=1e-4, rtol=1e-4)
        both = found(x, level=level, output="both")
        torch.testing.assert_close(both.scan, network(x, level=level), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(both.fine, network(x, level=level, output="fine"), atol=1e-4, rtol=1e-4)
    assert both.fine.shape[2:] == torch.Size(n * 2**level for n in x.shape[2:])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="AOTInductor needs a C++ compiler")
def test_a_flat_network_without_full_heads_is_compiled_and_answers_as_eager(tmp_path):
    network, checkpoint = weights_of(tmp_path, kwargs=FLAT)
    export_engines("aotinductor", RAREUNet(**FLAT), tmp_path, checkpoint)
    found = with_engine("aotinductor", network, tmp_path, checkpoint)
    for level, size in ((0, (4, 8)), (0, (12, 8)), (1, (2, 4)), (1, (6, 4))):
        x = torch.rand(1, 2, *size)
        with torch.no_grad():
            torch.testing.assert_close(found(x, level=level), network(x, level=level), atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="output must be 'scan' for a network without fine_convs, got 'fine'"):
        found(x, level=1, output="fine")


CALLS = [
    (dict(level=3), (8, 8, 8), "level must be 0 to 2, got 3"),
    (dict(level=-1), (8, 8, 8), "level must be 0 to 2, got -1"),
    (dict(level=1), (8, 6, 8), "spatial_size at level 1 must be divisible by 4, got \\[8, 6, 8\\]"),
    (dict(output="full"), (8, 8, 8), "output must be one of .'scan', 'fine', 'both'., got 'full'"),
]


@pytest.mark.parametrize("kwargs, size, match", CALLS)
def test_an_export_refuses_what_the_network_refuses(exported, kwargs, size, match):
    with pytest.raises(ValueError, match=match):
        exported("export")[1](torch.rand(1, 2, *size), **kwargs)


def test_eager_is_the_network_itself_and_needs_no_files():
    network = RAREUNet(**KWARGS)
    assert with_engine("eager", network, "/nowhere", "/nowhere/model.pt") is network


def test_an_export_of_other_weights_is_refused(exported, tmp_path):
    network, _, _, folder = exported("torchscript")
    _, other = weights_of(tmp_path, seed=1)
    with pytest.raises(ValueError, match=rf"{folder}/torchscript is not of the weights in {other}: .* --engine"):
        with_engine("torchscript", network, folder, other)


@pytest.mark.parametrize(
    "change", [lambda file: file.write_bytes(b"cut short"), lambda file: file.unlink()], ids=["changed", "missing"]
)
def test_an_export_that_is_not_whole_is_refused(exported, tmp_path, change):
    network, _, checkpoint, folder = exported("torchscript")
    shutil.copytree(folder, tmp_path / "exports")
    change(tmp_path / "exports/torchscript/network.ts")
    with pytest.raises(ValueError, match=r"is not as it was written \(network.ts\)"):
        with_engine("torchscript", network, tmp_path / "exports", checkpoint)


def test_without_an_export_the_command_that_writes_it_is_named(tmp_path):
    network, checkpoint = weights_of(tmp_path)
    with pytest.raises(
        ValueError,
        match=r"export_dir must hold the network for engine 'onnx'.*`run exporting .* --engine onnx .*` writes it",
    ):
        with_engine("onnx", network, tmp_path, checkpoint)


@pytest.mark.parametrize(
    "function, engine, match",
    [
        (with_engine, "tensorrt", r"engine must be one of \('eager', .*\), got 'tensorrt'"),
        (export_engines, "tensorrt", r"engine must be one of .*'all'\) to be exported, got 'tensorrt'"),
        (export_engines, "eager", r"engine must be one of .*'all'\) to be exported, got 'eager'"),
    ],
)
def test_an_unknown_engine_is_refused(tmp_path, function, engine, match):
    with pytest.raises(ValueError, match=match):
        function(engine, RAREUNet(**KWARGS), tmp_path, tmp_path / "model.pt")


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(exported, monkeypatch, tmp_path, engine):
    message = rf"engine '{engine}' needs the package \w+ .*: pip install '.\[{engine}\]'"
    for package in PACKAGES[engine]:
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    network, _, checkpoint, folder = exported("torchscript")
    with pytest.raises(ModuleNotFoundError, match=message):
        export_engines(engine, network, tmp_path, checkpoint)
    assert not (tmp_path / engine).exists()
    shutil.copytree(folder / "torchscript", tmp_path / engine)  # as if somebody else had made it
    with pytest.raises(ModuleNotFoundError, match=message):
        with_engine(engine, network, tmp_path, checkpoint)


def test_an_export_that_answers_otherwise_is_not_written_to_its_end(tmp_path, monkeypatch):
    network, checkpoint = weights_of(tmp_path, kwargs=FLAT)
    export_engines("export", network, tmp_path, checkpoint)
    write, others = WRITERS["export"], weights_of(tmp_path, seed=1, name="other.pt", kwargs=FLAT)[1]
    first = (tmp_path / "export/level_1.pt2").read_bytes()

    def write_another(program, file):
        write(program, file)
        if file.name == "level_1.pt2":
            file.write_bytes(first)

    monkeypatch.setitem(WRITERS, "export", write_another)
    with pytest.raises(
        RuntimeError, match=r"engine 'export' must give the logits of eager to 0\.001, at level 1 they differ"
    ):
        export_engines("export", network, tmp_path, others)
    with pytest.raises(ValueError, match="export_dir must hold the network for engine 'export'"):
        with_engine("export", network, tmp_path, others)


def test_logits_that_are_no_numbers_are_no_small_difference():
    """The first answer is right, those at the level 0 grid are not: NaN is neither above nor below the limit."""
    path = LevelPath(RAREUNet(**KWARGS).eval(), 1)

    def exported(image, level, output):
        logits = path.network(image, level=level, output=output)
        return logits * float("nan") if output == "fine" else logits

    with pytest.raises(RuntimeError, match=r"engine 'onnx' must give the logits of eager to 0\.001, .* differ by nan"):
        _check("onnx", exported, path)


def test_an_export_of_another_network_with_the_same_weights_is_refused(exported):
    _, _, checkpoint, folder = exported("torchscript")
    other = RAREUNet(**KWARGS, act="TANH")
    assert other.state_dict().keys() == RAREUNet(**KWARGS).state_dict().keys()
    with pytest.raises(ValueError, match=r"torchscript is of another network, or of another version of its code"):
        with_engine("torchscript", other, folder, checkpoint)


def test_machine_code_for_another_torch_is_refused(exported, tmp_path):
    """Told from what is noted: the files are not opened."""
    network, _, checkpoint, folder = exported("torchscript")
    shutil.copytree(folder / "torchscript", tmp_path / "aotinductor")
    stamp = tmp_path / "aotinductor" / "export.json"
    noted = json.loads(stamp.read_text())
    stamp.write_text(json.dumps({**noted, "versions": {"torch": "2.8.0"}}))
    with pytest.raises(ValueError, match=r"aotinductor is machine code for torch 2.8.0, this is .*` writes it"):
        with_engine("aotinductor", network, tmp_path, checkpoint)
