"""Measures of two predictions, the model of trust and its intervals, by hand."""

import json
import math
from dataclasses import replace

import pytest
import torch

from rare_unet_networks.levels import Route
from rare_unet_networks.utils.trust import TrustNotes, border_share, own_dice, soft_dice, trust_features, trust_mode
from rare_unet_networks.utils.trust_model import (
    MEASURES,
    STABILITY,
    TrustModel,
    load_trust_model,
    measures,
    trust_entries,
)


def probabilities(*foreground):
    """Two classes on a line of voxels: background and one structure."""
    p = torch.tensor(foreground)
    return torch.stack([1 - p, p])


def test_soft_dice_of_two_predictions():
    # 2 (0.8·0.4 + 0.5·0.5) / (0.64 + 0.25 + 0.16 + 0.25) = 1.14 / 1.3
    assert soft_dice(probabilities(0.8, 0.5, 0), probabilities(0.4, 0.5, 0)) == pytest.approx([1.14 / 1.3])
    assert soft_dice(probabilities(0.3, 0.9), probabilities(0.3, 0.9)) == pytest.approx([1.0])
    assert soft_dice(probabilities(1.0, 0), probabilities(0, 1.0)) == [0.0]
    assert soft_dice(probabilities(0.0, 0), probabilities(0.0, 0)) == [1.0]


def test_dice_of_a_label_map_with_its_own_probabilities():
    # Voxels 0 and 1 are in the map: 2 (0.9 + 0.6) / (2 + 0.9 + 0.6 + 0.3)
    p = probabilities(0.9, 0.6, 0.3)
    assert own_dice(p, p.argmax(dim=0)) == pytest.approx([3.0 / 3.8])
    p = probabilities(0.0, 0.0)
    assert own_dice(p, p.argmax(dim=0)) == [1.0]


def test_share_of_the_foreground_at_the_border():
    assert border_share(probabilities(0.2, 0.5, 0.3, 0.0)) == pytest.approx(0.2)  # 0.2 + 0 of 1.0


def test_features_are_in_mm_and_of_the_route():
    route = Route(1, (2, 2, 2), (1.0, 2.0, 4.0), (4, 2, 1), (4, 2, 1), (4, 2, 1), "")
    own = torch.zeros(2, 4, 4, 4)
    own[0] = 1
    own[:, 1, 1, 1] = torch.tensor([0.25, 0.75])
    own[:, 2, 2, 2] = torch.tensor([0.75, 0.25])
    features = trust_features(own, own, own, route, (1.0, 1.0, 1.0))
    # The scan has 4×4×4 mm, so a fine voxel has 1 mm3.
    assert features["volume"] == pytest.approx([1.0]) and features["label_volume"] == pytest.approx([1.0])
    assert features["spacing"] == pytest.approx(2.0) and features["anisotropy"] == 4.0 and features["level"] == 1
    assert features["border"] == pytest.approx(0.0, abs=1e-6)
    assert features["agreement"] == features["stability"] == pytest.approx([1.0])
    # Two voxels of entropy -(0.25 ln 0.25 + 0.75 ln 0.75), and one expected voxel of foreground.
    entropy = -2 * (0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert features["doubt"] == pytest.approx([entropy, entropy], rel=1e-4)
    assert "stability" not in trust_features(own, own, None, route, None)


@pytest.mark.parametrize("value, mode", [(True, "true"), (False, "false"), ("Full", "full"), ("false", "false")])
def test_modes(value, mode):
    assert trust_mode(value) == mode


def test_an_unknown_mode_is_an_error():
    with pytest.raises(ValueError, match=r"trust must be one of \('true', 'false', 'full'\), got 'maybe'"):
        trust_mode("maybe")


FEATURES = {
    "agreement": [0.9, 0.5],
    "confidence": [0.8, 0.8],
    "volume": [1000.0, 500.0],
    "label_volume": [1000.0, 500.0],
    "doubt": [0.5, 1.0],
    "border": 0.04,
    "spacing": 2.0,
    "anisotropy": 4.0,
    "level": 1,
}


def model(**changes):
    """Weighs the agreement alone: its log odds less 1, divided by 2, times 3, and 0.5 more."""
    n = len(MEASURES)
    weights = [0.5, 3.0, *[0.0] * (n - 1)]
    parts = dict(
        class_names=["anterior", "posterior"],
        last=3,
        volumes=[[math.log(1000), 0.2], [math.log(1000), 0.1]],
        centre=[1.0, *[0.0] * (n - 1)],
        scale=[2.0, *[1.0] * (n - 1)],
        weights=[weights, weights],
        errors=[[0.0, 0.1], [0.7, 0.02]],
        intervals={"1": {"anterior": [-1.0, 2.0], "posterior": [0.0, 0.0], "total": [-2.0, 1.0]}},
        full_centre=[],
        full_scale=[],
        full_weights=[],
    )
    return TrustModel(**{**parts, **changes})


DICE = [1 / (1 + math.exp(-(0.5 + 3 * (math.log(9) - 1) / 2))), 1 / (1 + math.exp(-(0.5 - 1.5)))]


def test_measures_have_their_names_order():
    values = dict(zip(MEASURES, measures(FEATURES, 1, model().volumes, last=1), strict=True))
    assert values["agreement"] == 0 and values["agreement of others"] == pytest.approx(math.log(9))
    assert values["doubt"] == pytest.approx(math.log(0.5)) and values["border"] == pytest.approx(0.2)
    assert values["volume"] == -6 and values["size"] == 6  # ln 0.5 / 0.1 is below the least
    assert values["confidence × spacing"] == pytest.approx(math.log(4)) and values["is last"] == 1
    full = measures({**FEATURES, "stability": [0.5, 0.9]}, 1, model().volumes, 3, is_full=True)
    assert full[-len(STABILITY) :] == pytest.approx([math.log(9), math.log(9)])


def test_expected_dice_error_and_interval():
    assert model().expected_dice(FEATURES) == pytest.approx(DICE)
    assert [model().error(dice) for dice in (0.2, 0.7, 0.95)] == [0.1, 0.02, 0.02]
    low, high = model().interval("anterior", 1000.0, [0.88, 0.98], 1)
    # exp(-1 · (1 - 0.88 + 0.02)) and exp(2 · 0.14)
    assert (low, high) == (pytest.approx(1000 * math.exp(-0.14)), pytest.approx(1000 * math.exp(0.28)))
    assert model().interval("total", 10.0, [0.88, 0.98], 1)[0] == pytest.approx(10 * math.exp(-2 * 0.09))
    assert model().interval("anterior", 0.0, [0.9, 0.9], 1) is None
    assert model().interval("anterior", 9.0, [0.9, 0.9], 2) is None  # no limits of this level


def test_a_low_expected_dice_has_the_interval_of_its_own():
    limits = {"low": {"anterior": [0.0, 1.0]}, "1": {"anterior": [0.0, 0.0]}}
    assert model(intervals=limits).interval("anterior", 1.0, [0.4, 0.6], 1)[1] == pytest.approx(math.exp(0.62))


def test_stability_is_weighed_if_it_was_fitted():
    n = len(MEASURES) + len(STABILITY)
    full = dict(full_centre=[0.0] * n, full_scale=[1.0] * n, full_weights=[[0.0] * (n - 1) + [1.0, 0.0]] * 2)
    shifted = {**FEATURES, "stability": [0.75, 0.5]}
    assert model(**full).expected_dice(shifted) == pytest.approx([0.75, 0.5])
    assert model(**full).expected_dice(FEATURES) == pytest.approx(DICE)
    assert model().expected_dice(shifted) == pytest.approx(DICE)


def test_reasons_are_a_low_dice_and_a_volume_outside_the_range():
    assert model(limit=0.5).reasons({**FEATURES, "label_volume": [1000.0, 1000.0]}) == []
    low, volume = model().reasons(FEATURES, "left")
    mean = sum(DICE) / 2
    assert low == f"the expected Dice of the left one is low ({mean:.2f}, the limit is 0.70)"
    # 1000 · exp(±0.35)
    assert volume == ("the volume of left posterior (500 mm3) is outside the range of the training (705 to 1419 mm3)")
    assert len(model().reasons({**FEATURES, "label_volume": [1000.0, 0.0]})) == 1  # empty: named elsewhere


def test_entries_of_a_record_by_side():
    notes = TrustNotes({"left": FEATURES, "right": {**FEATURES, "agreement": [0.5, 0.9]}})
    entries = trust_entries(notes, ["anterior", "posterior"], model(limit=0.0))
    assert entries["agreement"]["mean"] == pytest.approx(0.7)
    assert entries["agreement"]["classes"]["right posterior"] == 0.9
    dice = entries["expected_dice"]
    assert list(dice["classes"]) == ["left anterior", "left posterior", "right anterior", "right posterior"]
    assert dice["mean"] == pytest.approx(sum(DICE) / 2) and dice["error"] == 0.1
    assert list(entries["volume_interval"]) == [
        *("left anterior", "left posterior", "left", "right anterior", "right posterior", "right")
    ]
    assert entries["volume_interval"]["left posterior"] == pytest.approx([500.0, 500.0])
    assert set(trust_entries(notes, ["anterior", "posterior"])) == {"agreement"}


def test_a_saved_model_is_the_same(tmp_path):
    saved = replace(model(), errors=[[0.0, 0.123456789]], weights_sha256="12345678901234567890")
    saved.save(tmp_path / "trust.json")
    loaded = load_trust_model(tmp_path / "trust.json")
    assert loaded.errors == [[0.0, 0.12346]] and loaded.weights_sha256 == "12345678901234567890"
    assert loaded.expected_dice(FEATURES) == pytest.approx(DICE)


@pytest.mark.parametrize("content", ["no JSON", json.dumps([1]), json.dumps({"limit": 0.7})])
def test_another_file_is_an_error_that_names_it(tmp_path, content):
    (tmp_path / "trust.json").write_text(content)
    with pytest.raises(ValueError, match=r"trust\.json: expected"):
        load_trust_model(tmp_path / "trust.json")
