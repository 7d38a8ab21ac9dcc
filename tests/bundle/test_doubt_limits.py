"""Limits of the doubt, by hand; ``run calibrating`` for real is in test_calibration.py."""

import json
import logging
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from rare_unet_networks.bundle import find_doubt_limits

LEVELS = SimpleNamespace(num_levels=3)


def evaluator_of(*values):
    """An evaluator whose scans have these (level, doubt); None is a scan that failed."""

    def step(engine, value):
        if value is None:
            return []
        pred = MetaTensor(torch.zeros(1))
        pred.meta.update(route=SimpleNamespace(level=value[0]), doubt=value[1])
        return [{"pred": pred}]

    engine = Engine(step)
    engine.run = partial(engine.run, values)
    return engine


def test_a_limit_is_the_largest_doubt_times_the_margin_and_levels_without_a_scan_have_none(tmp_path, caplog):
    path = tmp_path / "out" / "doubt_limit.json"
    with caplog.at_level(logging.INFO):
        limits = find_doubt_limits(evaluator_of((0, 0.1), (2, 0.4), None, (0, 0.2)), LEVELS, path)
    assert limits == [0.3, None, 0.6]
    assert json.loads(path.read_text()) == {"doubt_limit": limits}
    assert 'the line for inference.json: "doubt_limit": [0.3, null, 0.6],' in caplog.messages


def test_without_a_scan_there_is_no_limit():
    with pytest.raises(ValueError, match="expected at least one scan that can be evaluated, got none"):
        find_doubt_limits(evaluator_of(None), LEVELS)


def test_limits_that_cannot_be_written_leave_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "doubt_limit.json"
    path.write_bytes(b"old")

    def write(self, *args, **kwargs):
        self.write_bytes(b"cut")
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_text", write)
    with pytest.raises(OSError, match="No space left"):
        find_doubt_limits(evaluator_of((0, 0.1)), LEVELS, path)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("doubt_limit.json", b"old")]
