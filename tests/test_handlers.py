import logging

import pytest
import torch
from ignite.engine import Engine

from rare_unet_networks import ResumableCheckpoint, UpdateAverage, averaged_model, cosine_decay, last_epoch
from rare_unet_networks.handlers import latest_checkpoint


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


def test_average_of_the_weights_by_hand():
    module = torch.nn.Linear(1, 1, bias=False)
    averaged = averaged_model(module, decay=0.75)

    def step(engine, batch):
        torch.nn.init.constant_(module.weight, batch)
        return 0

    engine = Engine(step)
    UpdateAverage(averaged, module).attach(engine)
    engine.run([8.0, 4.0, 0.0])
    # The first update copies: 8; then 0.75 · 8 + 0.25 · 4 = 7; then 0.75 · 7 = 5.25.
    assert float(averaged.module.weight) == 5.25
