import math

import pytest
import torch
from ignite.engine import Engine

from rare_unet_networks import ScaleDice, dice_per_class, summarise

NAN = math.nan
# pred, label (one row of voxels), Dice of class 1 and 2
DICE_CASES = [
    ([0, 1, 1, 2], [0, 1, 1, 2], [1.0, 1.0]),
    ([0, 1, 1, 2], [1, 1, 2, 2], [0.5, 2 / 3]),  # class 1: 2·1/(2+2), class 2: 2·1/(1+2)
    ([0, 0, 0, 2], [1, 0, 0, 2], [0.0, 1.0]),  # class 1 in the label only
    ([1, 0, 0, 2], [0, 0, 0, 2], [0.0, 1.0]),  # class 1 in the prediction only
    ([0, 0, 0, 2], [0, 0, 0, 2], [NAN, 1.0]),  # class 1 in neither
]


def row(values):
    return torch.tensor(values).reshape(1, 1, 1, -1)


def rows(*items):
    return [dict(zip(("case", "scale", "grid", "class", "dice"), item)) for item in items]


@pytest.mark.parametrize("pred, label, expected", DICE_CASES)
def test_dice_by_hand(pred, label, expected):
    assert dice_per_class(row(pred), row(label), 3) == pytest.approx(expected, nan_ok=True)


def test_maps_of_two_shapes_are_refused():
    with pytest.raises(ValueError, match="must have one shape"):
        dice_per_class(row([0, 1]), row([0, 1, 1]), 2)


def test_summary_is_over_cases_per_class_then_over_classes():
    summary = summarise(
        rows(
            ("a", 1, "native", "x", 0.8),
            ("a", 1, "native", "y", 0.4),
            ("b", 1, "native", "x", 0.6),
            ("b", 1, "native", "y", NAN),
            ("a", 0.5, "native", "x", 0.5),
            ("a", 0.5, "native", "y", 0.1),
        )
    )
    found = {(s["scale"], s["class"]): (s["mean"], s["n"], s["left_out"]) for s in summary}
    assert found[1, "x"] == pytest.approx((0.7, 2, 0))
    assert found[1, "y"] == pytest.approx((0.4, 1, 1))
    assert found[1, "mean"][:2] == pytest.approx((0.55, 2))  # (0.7 + 0.4) / 2, not the mean over cases
    assert found[0.5, "mean"][0] == pytest.approx(0.3)
    assert found["average", "mean"][:2] == pytest.approx(((0.55 + 0.3) / 2, 2))
    assert found["average", "x"][0] == pytest.approx(0.6)
    sd = {(s["scale"], s["class"]): s["sd"] for s in summary}
    assert sd[1, "x"] == pytest.approx(math.sqrt(0.02))  # of 0.8 and 0.6
    assert math.isnan(sd[1, "y"])


def test_metric_in_an_engine_gives_the_average_over_scales_and_each_scale_and_class():
    batches = [
        {"case": "a", "level": 0, "pred": row([1, 1, 0, 0]), "label": row([1, 1, 0, 0])},
        {"case": "a", "level": 1, "pred": row([1, 0, 0, 0]), "label": row([1, 1, 0, 0])},
    ]

    def step(engine, batch):
        engine.state.batch = [batch]
        return [{"pred": batch["pred"], "pred_full": batch["pred"], "label_full": row([0, 1, 0, 0])}]

    engine, metric = Engine(step), ScaleDice(["x"])
    metric.attach(engine, "dice")
    metrics = engine.run(batches).metrics
    assert metrics["dice_scale_1_x"] == 1.0
    assert metrics["dice_scale_0.5_x"] == pytest.approx(2 / 3)
    assert metrics["dice"] == pytest.approx(5 / 6)  # the full grid does not count in it
    grids = [(r["scale"], r["grid"]) for r in metric.rows]
    assert grids == [(1, "native"), (1, "full"), (0.5, "native"), (0.5, "full")]
    engine.run(batches)
    assert len(metric.rows) == 4  # an epoch starts afresh


def test_a_case_without_output_is_passed_over():
    engine, metric = Engine(lambda engine, batch: []), ScaleDice(["x"])
    metric.attach(engine, "dice")
    assert math.isnan(engine.run([0]).metrics["dice"])
