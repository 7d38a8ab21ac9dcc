"""Files of weights of every kind, and what a training is resumed with."""

import logging
import os

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from rare_unet_networks.handlers import AtomicDiskSaver, ResumableCheckpoint, WeightsLoader
from rare_unet_networks.networks import load_weights, weights


def network(channels=2):
    return nn.Sequential(nn.Conv3d(1, channels, 3), nn.InstanceNorm3d(channels, affine=True))


def prefixed(prefix):
    return {f"{prefix}{name}": value for name, value in network().state_dict().items()}


LAYOUTS = {
    "plain": lambda: network().state_dict(),
    "model": lambda: {"model": network().state_dict()},
    "state_dict": lambda: {"state_dict": network().state_dict(), "epoch": 3},
    "lightning": lambda: {"state_dict": prefixed("module."), "epoch": 3},
    "module": lambda: prefixed("module."),
    "compiled": lambda: prefixed("_orig_mod."),
    "both": lambda: prefixed("module._orig_mod."),
    "average": lambda: {"n_averaged": torch.tensor(3), **prefixed("module.")},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("legacy", [False, True])
def test_layouts_that_other_programs_write_are_taken(tmp_path, layout, legacy):
    content = LAYOUTS[layout]()
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    target = network()
    load_weights(tmp_path / "w.pt", target)
    values = [v for v in (content.get("model") or content.get("state_dict") or content).values() if v.dim() > 0]
    assert all(torch.equal(a, b) for a, b in zip(target.state_dict().values(), values, strict=True))


def test_the_docstring_lists_every_layout_that_is_taken():
    assert all(f"``{name}``" in load_weights.__doc__ for name in (*weights.PREFIXES, "n_averaged"))
    assert all(f'``"{name}"``' in load_weights.__doc__ for name in weights.WRAPPERS)


def test_a_network_of_several_devices_takes_them_as_well(tmp_path):
    torch.save(network().state_dict(), tmp_path / "w.pt")
    target = nn.DataParallel(network())
    load_weights(tmp_path / "w.pt", target)
    assert torch.equal(target.module[0].weight, torch.load(tmp_path / "w.pt", weights_only=True)["0.weight"])


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def nan():
    state = network().state_dict()
    state["0.bias"][0] = torch.nan
    return state


CONTENTS = [
    (lambda: {"network": {}, "optimizer": {}, "trainer": {}}, "the file is the state of a training, .* model.pt"),
    (lambda: network(3).state_dict(), "are of another network: 4 have another size .0.weight: 3×1×3×3×3 for 2×1×3×3×3"),
    (lambda: nn.Linear(1, 1).state_dict(), "network: 4 of 4 weights are missing .0.weight, 0.bias, 1.weight and"),
    (lambda: {**network().state_dict(), "x": torch.ones(1)}, "another network: 1 are not the network's .x."),
    (lambda: [1, 2], "expected tensors by name, the file holds a list"),
    (lambda: {}, "expected tensors by name"),
    (lambda: {"a": 1}, "expected tensors by name, a of the file is none"),
    (lambda: network(), "holds Python objects besides tensors and is not loaded: save a state_dict"),
    (
        lambda: {k: v.int() for k, v in network().state_dict().items()},
        r"4 are no dense tensors .*; the first is int32\)",
    ),
    (lambda: {k: v.cfloat() for k, v in network().state_dict().items()}, r"no dense .*; the first is complex64\)"),
    (lambda: {k: v.to("meta") for k, v in network().state_dict().items()}, "4 are no dense tensors of real numbers"),
    (lambda: {k: v.to_sparse() for k, v in network().state_dict().items()}, "4 are no dense tensors of real numbers"),
    (nan, "1 weights are NaN or infinite .0.bias."),
]


@pytest.mark.parametrize("content, match", CONTENTS)
def test_what_a_file_holds_instead_is_said(tmp_path, content, match):
    torch.save(content(), tmp_path / "w.pt")
    refused(tmp_path / "w.pt", match)


def refused(path, match):
    target = network()
    before = [p.clone() for p in target.parameters()]
    with pytest.raises(ValueError, match=match) as error:
        load_weights(path, target)
    text = str(error.value)
    assert text.startswith(f"{path}: ") and "\n" not in text and "weights_only" not in text
    assert all(torch.equal(a, b) for a, b in zip(before, target.parameters()))


FILES = [
    (b"", "the file is empty"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "a git-lfs pointer .`git lfs pull`"),
    (b"<!DOCTYPE html>", "a web page"),
    (b"junk", "no known format"),
    (bytes(2000), "zeros"),
    (b"PK\x03\x04junk", "the file is damaged or cut"),
    (b"\x80\x02junk", "the file is damaged or cut|holds Python objects"),
]


@pytest.mark.parametrize("content, match", FILES)
def test_what_a_file_is_instead_is_said(tmp_path, content, match):
    (tmp_path / "w.pt").write_bytes(content)
    refused(tmp_path / "w.pt", match)


def test_a_missing_file_and_a_folder_are_said(tmp_path):
    refused(tmp_path / "w.pt", "there is no such file")
    refused(tmp_path, "expected a file, got a folder")


def test_a_program_is_distinguished_from_weights(tmp_path):
    torch.jit.script(network()).save(tmp_path / "w.pt")
    refused(tmp_path / "w.pt", "the file is a TorchScript program")


def test_no_code_of_a_file_is_run(tmp_path):
    torch.save({"a": Payload(tmp_path / "executed")}, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", "holds Python objects")
    assert not (tmp_path / "executed").exists()


def test_every_cut_and_every_flipped_bit_of_the_weights_is_noticed(tmp_path):
    path = tmp_path / "w.pt"
    torch.save(nn.Linear(100, 100).state_dict(), path)
    content = path.read_bytes()
    for length in (10, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        refused(path, "is damaged or cut")
    for position in range(2000, 40000, 3001):
        damaged = bytearray(content)
        damaged[position] ^= 4
        path.write_bytes(damaged)
        refused(path, "is damaged")


def test_the_handler_loads_when_a_run_starts_and_says_what(tmp_path, caplog):
    torch.save({"model": network().state_dict()}, tmp_path / "w.pt")
    target = network()
    engine = Engine(lambda engine, batch: None)
    WeightsLoader(str(tmp_path / "w.pt"), {"model": target}, map_location="cpu").attach(engine)
    with caplog.at_level(logging.INFO):
        engine.run([0])
    assert torch.equal(target[0].weight, torch.load(tmp_path / "w.pt", weights_only=True)["model"]["0.weight"])
    assert f"weights of {tmp_path / 'w.pt'}" in caplog.text


def training(folder, lr, weight_decay=0.1, channels=2, epochs=1):
    """Trains for some epochs, one step each, with the learning rate halved by every epoch."""
    model = network(channels)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch)
    engine = Engine(lambda engine, batch: optimizer.step())
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: scheduler.step())
    objects = {"network": model, "optimizer": optimizer, "lr_scheduler": scheduler}
    engine.state.rank, engine.state.max_epochs = 0, epochs
    ResumableCheckpoint(str(folder), objects).attach(engine)
    engine.run([0], max_epochs=epochs)
    return optimizer, scheduler


def test_a_changed_learning_rate_counts_when_a_training_is_resumed_and_is_said(tmp_path, caplog):
    training(tmp_path, lr=0.1, epochs=2)
    optimizer, scheduler = training(tmp_path, lr=0.4, weight_decay=0.2, epochs=3)
    (group,) = optimizer.param_groups
    assert group["lr"] == pytest.approx(0.4 * 0.5**3) and scheduler.base_lrs == [0.4]
    assert group["weight_decay"] == 0.2
    assert "resuming with lr 0.4, it was 0.1" in caplog.text
    assert "resuming with weight_decay 0.2, it was 0.1" in caplog.text


def test_the_same_options_are_resumed_without_a_word(tmp_path, caplog):
    training(tmp_path, lr=0.1, epochs=2)
    optimizer, _ = training(tmp_path, lr=0.1, epochs=3)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**3)
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


def test_a_checkpoint_of_another_network_is_named(tmp_path):
    training(tmp_path, lr=0.1)
    with pytest.raises(ValueError, match=r"checkpoint_epoch=1.pt is of a training with other options: .*size mismatch"):
        training(tmp_path, lr=0.1, channels=3, epochs=2)


def test_a_full_disk_is_the_reason_and_leaves_the_old_file(tmp_path, monkeypatch):
    saver = AtomicDiskSaver(str(tmp_path), "model.pt")
    saver({"a": torch.ones(3)}, "any")
    before = (tmp_path / "model.pt").read_bytes()

    def save(content, path, *args, **kwargs):
        open(path, "wb").close()
        raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 640 vs 534")

    monkeypatch.setattr(torch, "save", save)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 0}))
    with pytest.raises(OSError, match=r"model.pt could not be written: No space left on device"):
        saver({"a": torch.zeros(3)}, "any")
    assert {p.name for p in tmp_path.iterdir()} == {"model.pt"} and (tmp_path / "model.pt").read_bytes() == before
