import logging
import os
import struct

import pytest
import torch
from ignite.engine import Engine, Events

from rare_unet_networks.handlers.checkpoints import (
    BestCheckpointSaver,
    ResumableCheckpoint,
    last_epoch,
    latest_checkpoint,
)
from rare_unet_networks.handlers.training import cosine_decay


@pytest.mark.parametrize("epoch, factor", [(0, 1.0), (5, 0.5), (10, 0.0), (12, 0.0)])
def test_cosine_decay_goes_from_one_to_zero_and_stays(epoch, factor):
    assert cosine_decay(10)(epoch) == pytest.approx(factor)


def test_a_longer_training_follows_its_own_curve_after_a_resume():
    def schedule(max_epochs):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        return torch.optim.lr_scheduler.LambdaLR(optimizer, cosine_decay(max_epochs))

    short, longer = schedule(10), schedule(20)
    for _ in range(10):
        short.optimizer.step()
        short.step()
    longer.load_state_dict(short.state_dict())
    longer.optimizer.step()
    longer.step()
    assert longer.get_last_lr()[0] == pytest.approx(cosine_decay(20)(11))


def trainer(epochs, folder):
    """Counts in a parameter how many iterations were trained, and keeps checkpoints."""
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(module.weight)

    def step(engine, batch):
        with torch.no_grad():
            module.weight += 1
        return 0

    engine = Engine(step)
    engine.state.max_epochs, engine.state.rank = epochs, 0
    ResumableCheckpoint(str(folder), {"network": module}).attach(engine)
    engine.run([0, 0], max_epochs=epochs)
    return module


def test_a_run_goes_on_from_the_newest_whole_checkpoint_and_two_are_kept(tmp_path, caplog):
    assert last_epoch(tmp_path) == 0 and latest_checkpoint(tmp_path) is None
    assert float(trainer(3, tmp_path).weight) == 6
    (tmp_path / "checkpoint_epoch=4.pt").write_bytes(b"cut short")
    assert last_epoch(tmp_path) == 4
    with caplog.at_level(logging.WARNING):
        assert float(trainer(5, tmp_path).weight) == 10  # two iterations an epoch, none lost and none repeated
    assert "checkpoint_epoch=4.pt cannot be read" in caplog.text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint_epoch=4.pt", "checkpoint_epoch=5.pt"]


def test_a_training_whose_checkpoints_cannot_be_read_stops_and_leaves_them(tmp_path):
    for epoch in (4, 5):
        (tmp_path / f"checkpoint_epoch={epoch}.pt").write_bytes(b"cut short")
    with pytest.raises(ValueError, match=r"none of the 2 checkpoints can be read.*choose another output_dir"):
        trainer(6, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_checkpoint_with_a_flipped_bit_is_not_resumed(tmp_path, caplog):
    trainer(2, tmp_path)
    path = tmp_path / "checkpoint_epoch=2.pt"
    content = bytearray(path.read_bytes())
    weight = content.index(struct.pack("<f", 4.0))  # of two epochs of two iterations
    content[weight + 3] ^= 1  # PyTorch reads it as another weight
    path.write_bytes(content)
    assert latest_checkpoint(tmp_path) == str(tmp_path / "checkpoint_epoch=1.pt")
    assert "checkpoint_epoch=2.pt cannot be read (the file is damaged" in caplog.text


def test_a_training_stops_before_it_saves_weights_that_are_no_numbers(tmp_path):
    module = torch.nn.Linear(1, 1)
    engine = Engine(lambda engine, batch: module.bias.data.mul_(float("nan") if engine.state.epoch == 3 else 1))
    engine.state.max_epochs, engine.state.rank = 5, 0
    ResumableCheckpoint(str(tmp_path), {"network": module}).attach(engine)
    with pytest.raises(ValueError, match="after epoch 3 weights are NaN or infinite, so the training cannot go on"):
        engine.run([0], max_epochs=5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint_epoch=1.pt", "checkpoint_epoch=2.pt"]


def test_unreadable_checkpoints_of_later_epochs_do_not_count_among_the_two_that_are_kept(tmp_path):
    trainer(2, tmp_path)
    for epoch in (8, 9):
        (tmp_path / f"checkpoint_epoch={epoch}.pt").write_bytes(b"cut short")
    trainer(4, tmp_path)
    names = [f"checkpoint_epoch={epoch}.pt" for epoch in (3, 4, 8, 9)]
    assert sorted(p.name for p in tmp_path.iterdir()) == names


def validator(folder, module, scores):
    """Validates once per score and keeps the best weights of ``module``."""
    engine = Engine(lambda engine, batch: 0)
    saver = BestCheckpointSaver(str(folder), {"model": module}, key_metric_filename="model.pt")
    saver.attach(engine)

    @engine.on(Events.EPOCH_STARTED)
    def validate(engine):
        engine.state.key_metric_name = "dice"
        engine.state.metrics["dice"] = scores[engine.state.epoch - 1]
        torch.nn.init.constant_(module.weight, engine.state.epoch)

    engine.run([0], max_epochs=len(scores))


def best(folder):
    return float(torch.load(folder / "model.pt", weights_only=True)["weight"])


def test_the_best_weights_survive_a_kill_while_better_ones_are_written(tmp_path, monkeypatch):
    module = torch.nn.Linear(1, 1, bias=False)
    validator(tmp_path, module, [0.5, 0.4])
    assert best(tmp_path) == 1
    save = torch.save

    def killed(obj, path, **kwargs):
        if float(obj["weight"]) < 2:
            return save(obj, path, **kwargs)
        with open(path, "wb") as file:
            file.write(b"half")
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", killed)
        with pytest.raises(SystemExit):
            validator(tmp_path, module, [0.5, 0.6])
    assert best(tmp_path) == 1
    validator(tmp_path, module, [0.1, 0.7])
    assert best(tmp_path) == 2


def test_a_missing_best_file_is_written_again(tmp_path):
    module = torch.nn.Linear(1, 1, bias=False)
    engine = Engine(lambda engine, batch: 0)
    BestCheckpointSaver(str(tmp_path), {"model": module}, key_metric_filename="model.pt").attach(engine)

    @engine.on(Events.EPOCH_STARTED)
    def validate(engine):
        (tmp_path / "model.pt").unlink(missing_ok=True)
        engine.state.key_metric_name = "dice"
        engine.state.metrics["dice"] = engine.state.epoch
        torch.nn.init.constant_(module.weight, engine.state.epoch)

    engine.run([0], max_epochs=3)
    assert best(tmp_path) == 3


def test_the_best_weights_can_be_read_by_others(tmp_path):
    previous = os.umask(0o022)
    try:
        validator(tmp_path, torch.nn.Linear(1, 1, bias=False), [0.5])
    finally:
        os.umask(previous)
    assert (tmp_path / "model.pt").stat().st_mode & 0o777 == 0o644
