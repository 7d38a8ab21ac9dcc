"""Programs are compared with eager on the first image of each level."""

import json
import logging

import pytest
import torch

from rare_unet_networks.networks import Prediction
from rare_unet_networks.runtimes.load import runtime_in_words
from rare_unet_networks.runtimes.verified import VerifiedPrograms


class Network(torch.nn.Module):
    """Adds a number at level 0 and another one deeper, and counts its calls."""

    def __init__(self, first, others):
        super().__init__()
        self.added, self.calls, self.runtime = (first, others), 0, "openvino"

    def forward(self, x, level=0, output="scan"):
        self.calls += 1
        y = x + self.added[min(level, 1)]
        return Prediction(y, y) if output == "both" else y


X = torch.zeros(1, 1, 4, 4, 4)


def test_right_programs_are_compared_once_and_used(tmp_path):
    eager = Network(0.0, 0.0)
    for _ in range(2):  # the second time the result of the first is read
        verified = VerifiedPrograms(Network(0.04, 0.0), eager, tmp_path)
        verified(X, level=0, output="both")
        assert float(verified(X).max()) == pytest.approx(0.04)
    assert eager.calls == 1 and verified.refused == []


def test_wrong_programs_are_not_used_at_that_level_which_is_said_once(tmp_path, caplog):
    caplog.set_level(logging.WARNING, "rare_unet_networks")
    verified = VerifiedPrograms(Network(0.0, 0.06), Network(0.0, 0.0), tmp_path)
    for _ in range(2):
        assert float(verified(X, level=2).max()) == 0.0
    reason = "logits of openvino differ by 0.06 from those of eager, expected at most 0.05"
    assert caplog.messages == [f"runtime auto: eager at level 2, because {reason}"]
    assert verified.refused == [2]
    again = VerifiedPrograms(Network(0.0, 0.06), Network(0.0, 0.0), tmp_path)
    assert again.refused == [2] and float(again(X, level=2).max()) == 0.0 and len(caplog.messages) == 1


@pytest.mark.parametrize("outputs, calls", [
    (["scan", "scan", "fine", "both"], 2),  # the grid of trust's second prediction says nothing of the other one
    (["both", "scan", "fine"], 1),
])  # fmt: skip
def test_each_grid_of_a_level_is_compared_once(tmp_path, outputs, calls):
    eager = Network(0.0, 0.0)
    verified = VerifiedPrograms(Network(0.0, 0.04), eager, tmp_path)
    for output in outputs:
        verified(X, level=1, output=output)
    assert eager.calls == calls and sorted(verified.differences[1]) == ["fine", "scan"]
    assert VerifiedPrograms(Network(0.0, 0.0), eager, tmp_path).differences == verified.differences


def test_logits_that_are_not_finite_are_not_used(tmp_path):
    verified = VerifiedPrograms(Network(float("nan"), 0.0), Network(0.0, 0.0), tmp_path)
    assert float(verified(X).max()) == 0.0 and verified.refused == [0]


@pytest.mark.parametrize("text", ["", "[1]", '{"0": [1]}', '{"0": 0.0}', '{"x": {}}', "{"])
def test_a_damaged_file_means_to_compare_anew(tmp_path, text):
    (tmp_path / "verified.json").write_text(text)
    VerifiedPrograms(Network(0.0, 0.0), Network(0.0, 0.0), tmp_path)(X)
    assert json.loads((tmp_path / "verified.json").read_text()) == {"0": {"scan": 0.0}}


def test_records_name_the_levels_of_eager(tmp_path, monkeypatch):
    monkeypatch.setattr("rare_unet_networks.runtimes.load._version", lambda package: f"of {package}")
    verified = VerifiedPrograms(Network(1.0, 0.0), Network(0.0, 0.0), tmp_path)
    assert runtime_in_words(verified) == "openvino (openvino of openvino)"
    verified(X)
    assert runtime_in_words(verified) == "openvino (openvino of openvino), eager at level 0"
