import math

import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from rare_unet_networks.metrics.multi_scale import (
    MultiScaleMetrics,
    dice_per_class,
    distance_per_class,
    volume_error_per_class,
)
from rare_unet_networks.metrics.summary import summarise

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
    return [dict(zip(("case", "scale", "grid", "class", "dice", "volume_error"), item)) for item in items]


def summarised(*items):
    """Dice part of the summary by (scale, class)."""
    return {(s["scale"], s["class"]): s for s in summarise(rows(*items)) if s["measure"] == "dice"}


@pytest.mark.parametrize("pred, label, expected", DICE_CASES)
def test_dice_by_hand(pred, label, expected):
    assert dice_per_class(row(pred), row(label), 3) == pytest.approx(expected, nan_ok=True)


def test_maps_of_two_shapes_are_refused():
    with pytest.raises(ValueError, match="must have one shape"):
        dice_per_class(row([0, 1]), row([0, 1, 1]), 2)


def test_summary_is_over_cases_per_class_then_over_classes():
    found = summarised(
        ("a", 1, "native", "x", 0.8),
        ("a", 1, "native", "y", 0.4),
        ("b", 1, "native", "x", 0.6),
        ("b", 1, "native", "y", NAN),
        ("a", 0.5, "native", "x", 0.5),
        ("a", 0.5, "native", "y", 0.1),
    )
    assert [found[1, "x"][k] for k in ("mean", "n", "left_out")] == pytest.approx([0.7, 2, 0])
    assert [found[1, "y"][k] for k in ("mean", "n", "left_out")] == pytest.approx([0.4, 1, 1])
    assert found[1, "mean"]["mean"] == pytest.approx(0.55)  # (0.7 + 0.4) / 2, not the mean over cases
    assert found[0.5, "mean"]["mean"] == pytest.approx(0.3)
    assert found["average", "mean"]["mean"] == pytest.approx((0.55 + 0.3) / 2) and found["average", "mean"]["n"] == 2
    assert found["average", "x"]["mean"] == pytest.approx(0.6)
    assert found[1, "x"]["sd"] == pytest.approx(math.sqrt(0.02))  # of 0.8 and 0.6
    assert math.isnan(found[1, "y"]["sd"])


def test_n_of_the_class_mean_counts_the_cases_with_every_class():
    found = summarised(("a", 1, "native", "x", 0.8), ("a", 1, "native", "y", NAN), ("b", 1, "native", "x", 0.6))
    assert (found[1, "mean"]["n"], found[1, "mean"]["left_out"]) == (0, 2)
    assert found[1, "mean"]["mean"] == pytest.approx(0.7)  # class y is nowhere: left out


def test_a_class_without_any_distance_does_not_leave_the_mean_to_the_others():
    items = [("a", 1, "full", "x", 0.8, 1.0, 2.0), ("a", 1, "full", "y", 0.0, -100.0, NAN)]
    columns = ("case", "scale", "grid", "class", "dice", "volume_error", "hd95")
    summary = summarise([dict(zip(columns, item)) for item in items])
    means = {(s["scale"], s["class"]): s["mean"] for s in summary if s["measure"] == "hd95"}
    assert means[1, "x"] == 2.0 and all(math.isnan(means[k]) for k in ((1, "y"), (1, "mean"), ("average", "mean")))


def test_volume_errors_are_summed_up_with_and_without_their_sign():
    summary = summarise(rows(("a", 1, "full", "x", 0.8, -10.0), ("b", 1, "full", "x", 0.8, 20.0)))
    means = {s["measure"]: s["mean"] for s in summary if (s["scale"], s["class"]) == (1, "x")}
    assert means == pytest.approx({"dice": 0.8, "volume_error": 5.0, "abs_volume_error": 15.0})


def test_volume_error_by_hand():
    # Class 1: 3 voxels for 2, class 2: none for 1, class 3: one for none.
    found = volume_error_per_class(row([1, 1, 1, 3]), row([1, 1, 2, 0]), 4)
    assert found == pytest.approx([50.0, -100.0, NAN], nan_ok=True)


def test_surface_distance_by_hand_in_mm():
    # Single voxels two apart along the last axis of 3 mm: 6 mm. Class 2 is in one map only.
    found = distance_per_class(row([1, 0, 0, 2]), row([0, 0, 1, 0]), 3, (1.0, 2.0, 3.0))
    assert found == pytest.approx([6.0, NAN], nan_ok=True)


def test_metric_in_an_engine_gives_the_average_over_scales_and_each_scale_and_class():
    batches = [
        {"case": "a", "level": 0, "pred": row([1, 1, 0, 0]), "label": row([1, 1, 0, 0])},
        {"case": "a", "level": 1, "pred": row([1, 0, 0, 0]), "label": row([1, 1, 0, 0])},
    ]

    def step(engine, batch):
        engine.state.batch = [batch]
        return [{"pred": batch["pred"], "pred_fine": batch["pred"], "label_fine": row([0, 1, 0, 0])}]

    engine, metric = Engine(step), MultiScaleMetrics(["x"])
    metric.attach(engine, "dice")
    metrics = engine.run(batches).metrics
    assert metrics["dice_scale_1_x"] == 1.0
    assert metrics["dice_scale_0.5_x"] == pytest.approx(2 / 3)
    # Native: 1 and 2/3. Full: both predictions against one voxel, 2/3 and 0. The mean of both averages:
    assert metrics["dice"] == pytest.approx((5 / 6 + 1 / 3) / 2)
    grids = [(r["scale"], r["grid"]) for r in metric.rows]
    assert grids == [(1, "native"), (1, "full"), (0.5, "native"), (0.5, "full")]
    assert "hd95" not in metric.rows[0]
    engine.run(batches)
    assert len(metric.rows) == 4  # an epoch starts afresh


def test_scores_that_a_coarse_label_cannot_give_are_undefined_and_count_nowhere():
    metric = MultiScaleMetrics(["x"], regions={"all": [1]})
    fine = {"pred_fine": row([0, 1, 1, 0]), "label_fine": row([0, 1, 0, 0])}  # Dice 2/3
    own = {"pred": row([1, 1, 0, 0]), "label": row([1, 1, 0, 0]), "level": 1}
    metric.update([{**own, "case": "a", **fine}, {**own, "case": "b", "pred_fine": row([0, 1, 1, 0])}])
    scores = {(r["case"], r["grid"], r["class"]): r["dice"] for r in metric.rows}
    assert scores["b", "native", "x"] == 1.0
    assert math.isnan(scores["b", "full", "x"]) and math.isnan(scores["b", "full", "all"])
    assert metric.compute() == pytest.approx((1 + 2 / 3) / 2)
    (line,) = [
        s for s in metric.summary if (s["grid"], s["scale"], s["class"], s["measure"]) == ("full", 0.5, "x", "dice")
    ]
    assert (line["n"], line["left_out"], line["mean"]) == (1, 1, pytest.approx(2 / 3))
    metric.reset()
    metric.update([{**own, "case": "b", "pred_fine": row([0, 1, 1, 0])}])
    assert metric.compute() == 1.0  # of the native grid alone


def test_distances_are_taken_with_the_spacing_of_the_label():
    affine = torch.diag(torch.tensor([1.0, 1, 2, 1]))
    maps = {"pred": MetaTensor(row([1, 0, 0, 0]), affine=affine), "label": MetaTensor(row([0, 1, 0, 0]), affine=affine)}
    metric = MultiScaleMetrics(["x"], distances=True)
    metric.update([{"case": "a", "level": 0, **maps, "pred_nearest": maps["label"], "label_nearest": maps["label"]}])
    assert [(r["grid"], r["hd95"], r["volume_error"]) for r in metric.rows] == [
        ("native", 2.0, 0.0),
        ("native_nearest", 0.0, 0.0),
    ]


def test_a_case_without_output_is_passed_over():
    engine, metric = Engine(lambda engine, batch: []), MultiScaleMetrics(["x"])
    metric.attach(engine, "dice")
    assert math.isnan(engine.run([0]).metrics["dice"])


def test_regions_are_scored_as_unions_and_left_out_of_the_mean():
    item = {"case": "a", "level": 0, "pred": row([0, 1, 1, 2]), "label": row([0, 1, 2, 2])}
    metric = MultiScaleMetrics(["x", "y"], regions={"both": [1, 2], "only_y": [2]})
    metric.update([item])
    found = {r["class"]: r["dice"] for r in metric.rows}
    assert found == pytest.approx({"x": 2 / 3, "y": 2 / 3, "both": 1.0, "only_y": 2 / 3})
    metric.compute()
    means = {s["class"]: s for s in metric.summary if s["measure"] == "dice" and s["scale"] == 1}
    assert means["mean"]["mean"] == pytest.approx(2 / 3) and means["mean"]["n"] == 1
    assert means["both"]["mean"] == 1.0
