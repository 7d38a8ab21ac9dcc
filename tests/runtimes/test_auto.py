"""The choice of a runtime: what is used where, what is exported once, and what a line of the log says."""

import json
import logging
import os
import time
from pathlib import Path

import pytest
import torch

from rare_unet_networks.networks import RAREUNet
from rare_unet_networks.runtimes import auto, cache, export
from rare_unet_networks.runtimes.auto import FAILURE, AutoRuntime
from rare_unet_networks.runtimes.load import runtime_in_words
from rare_unet_networks.utils.files import hidden_beside

from .test_runtimes import KWARGS, runtime_or_skip, weights_of


class Doubled(torch.nn.Module):
    """In place of OpenVINO's network: its prediction is easily known."""

    runtime = "openvino"

    def forward(self, x, level=0, output="scan"):
        return 2 * x


@pytest.fixture
def exporter(monkeypatch, tmp_path):
    """As if all packages were installed; lists the exports, and raises ``error`` if there is one."""
    calls = []

    def fake(runtime, network, export_dir, checkpoint, tolerance):
        calls.append(Path(export_dir))
        if fake.error is not None:
            raise fake.error
        (Path(export_dir) / runtime).mkdir(parents=True)

    def load(runtime, network, folder, checkpoint, device):
        if not (folder / runtime).is_dir() or (folder / runtime / "cut").exists():
            raise ValueError("incomplete")
        return Doubled()

    fake.error, fake.calls = None, calls
    monkeypatch.setattr(auto, "find_spec", lambda name: name)
    monkeypatch.setattr(export, "export_runtimes", fake)
    monkeypatch.setattr(auto, "load_runtime", load)
    monkeypatch.setattr(auto, "VerifiedPrograms", lambda programs, network, folder: programs)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return fake


def auto_of(tmp_path, seed=0, name="model.pt", **kwargs):
    network, checkpoint = weights_of(tmp_path, seed, name)
    return AutoRuntime(network, kwargs.pop("export_dir", tmp_path / "exports"), checkpoint, **kwargs)


def test_the_network_is_exported_once_and_then_used(exporter, tmp_path):
    x = torch.rand(1, 2, 16, 8, 8)
    for _ in range(2):
        network = auto_of(tmp_path)
        assert network.runtime == "eager"  # nothing is exported before it is needed
        torch.testing.assert_close(network(x), 2 * x)
        assert network.runtime == "openvino"
    assert len(exporter.calls) == 1
    assert len(list((tmp_path / "exports/auto").iterdir())) == 1  # no temporary folder is left


def test_exports_of_several_checkpoints_lie_side_by_side(exporter, tmp_path):
    for seed, name in ((0, "a.pt"), (1, "b.pt")):
        auto_of(tmp_path, seed, name).prepare()
    assert len(list((tmp_path / "exports/auto").iterdir())) == len(exporter.calls) == 2


def test_a_damaged_export_is_replaced(exporter, tmp_path):
    auto_of(tmp_path).prepare()
    (folder,) = (tmp_path / "exports/auto").iterdir()
    (folder / "openvino/cut").touch()
    network = auto_of(tmp_path)
    network.prepare()
    assert network.runtime == "openvino" and list((tmp_path / "exports/auto").iterdir()) == [folder]
    assert not (folder / "openvino/cut").exists() and len(exporter.calls) == 2


def test_the_export_of_a_faster_process_is_kept(tmp_path):
    ours, theirs = tmp_path / ".ours", tmp_path / "export"
    for folder in (ours, theirs):
        folder.mkdir()
        (folder / "from").write_text(folder.name)
    cache.put_folder(ours, theirs)
    assert (theirs / "from").read_text() == "export"


def test_what_a_killed_export_left_goes_after_a_day(exporter, tmp_path):
    root = tmp_path / "exports/auto"
    (old, young), other = (hidden_beside(root / "key") for _ in range(2)), root / ".mine"
    for folder in (old, young, other):
        folder.mkdir(parents=True)
    for folder in (old, other):
        os.utime(folder, (time.time() - 25 * 3600,) * 2)
    auto_of(tmp_path).prepare()
    assert not old.exists() and young.exists() and other.exists()


def test_a_folder_that_cannot_be_written_is_replaced_by_the_users_cache(exporter, tmp_path):
    (tmp_path / "exports").write_text("a file, so that nothing can lie below it")
    network = auto_of(tmp_path)
    network.prepare()
    assert network.runtime == "openvino" and len(list((tmp_path / "cache/rare_unet_networks").iterdir())) == 1
    assert cache.cache_folders(tmp_path)[1] == tmp_path / "cache/rare_unet_networks"


@pytest.mark.parametrize("error, reason, is_remembered", [
    (RuntimeError("they differ by 0.06"), "RuntimeError: they differ by 0.06", True),
    (OSError("No space left on device"), "No space left on device", False),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1073741824 bytes."),
     "not enough memory: 1.0 GiB were asked for", False),
])  # fmt: skip
def test_a_failed_export_means_eager_with_one_warning(exporter, tmp_path, caplog, error, reason, is_remembered):
    exporter.error = error
    x = torch.rand(1, 2, 16, 8, 8)
    for _ in range(2):
        caplog.clear()
        network = auto_of(tmp_path).eval()
        with torch.no_grad():
            torch.testing.assert_close(network(x), network.network(x))
        (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        kept = [f" (not tried again while {f} exists)" for f in (tmp_path / "exports/auto").glob(f"*/{FAILURE}")]
        assert line == f"runtime auto: eager, because {reason}{''.join(kept)}" and network.runtime == "eager"
    assert len(exporter.calls) == (1 if is_remembered else 2)  # a network that cannot be exported is not tried again
    folders = list((tmp_path / "exports/auto").iterdir())
    assert [json.loads((f / FAILURE).read_text())["reason"] for f in folders] == [reason] * is_remembered


@pytest.mark.parametrize("options, level, reason", [
    ({}, logging.DEBUG, "of missing packages: onnxscript"),
    ({"device": "meta"}, logging.INFO, "the network runs on meta"),
])  # fmt: skip
def test_eager_is_used_without_a_warning_where_openvino_is_not_meant_to_be(
    exporter, monkeypatch, tmp_path, caplog, options, level, reason
):
    monkeypatch.setattr(auto, "find_spec", lambda name: None if name == "onnxscript" else name)
    network = auto_of(tmp_path, **options)
    with caplog.at_level(logging.DEBUG, logger="rare_unet_networks"):
        network.prepare()
    (record,) = [r for r in caplog.records if "runtime auto" in r.getMessage()]
    assert (record.levelno, record.getMessage()) == (level, f"runtime auto: eager, because {reason}")
    assert exporter.calls == []


def test_weights_that_cannot_be_read_are_left_to_the_handler_that_loads_them(exporter, tmp_path):
    network = AutoRuntime(RAREUNet(**KWARGS), tmp_path / "exports", tmp_path / "nothing.pt")
    network.prepare()
    assert network.runtime == "eager" and exporter.calls == []


@pytest.mark.parametrize("runtime", [runtime_or_skip("openvino")])
def test_openvino_predicts_as_eager_without_a_command_before(tmp_path, runtime):
    network = auto_of(tmp_path).eval()
    x = torch.rand(2, 2, 8, 4, 4)
    with torch.no_grad():
        for output in ("scan", "fine", "scan"):
            expected = network.network(x, level=1, output=output)
            torch.testing.assert_close(network(x, level=1, output=output), expected, atol=1e-4, rtol=1e-4)
    assert runtime_in_words(network).startswith("openvino (openvino 2") and network.refused == []
