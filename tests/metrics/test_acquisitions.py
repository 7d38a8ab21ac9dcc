import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from rare_unet_networks import ResolutionLevels
from rare_unet_networks.handlers import PerCaseMetricsSaver
from rare_unet_networks.metrics import AcquisitionMetrics

from ..bundles.conftest import read


def labels(*values):
    return MetaTensor(torch.tensor(values).reshape(1, 1, 1, -1))


def item(case, spacing, pred, fine):
    affine = torch.diag(torch.tensor([*(float(s) for s in spacing.split("x")), 1.0]))
    image = MetaTensor(torch.zeros(1, 1, 8, 8, 8), affine=affine[None])
    route = ResolutionLevels(4, spacing=(1.0, 1.0, 1.0), rule="volume").route(image)
    pred.meta["route"] = route
    return {
        "case": case, "spacing": spacing, "profile": "gaussian",
        "pred": pred, "label": labels(1, 1, 0, 0), "pred_fine": fine, "label_fine": labels(1, 1, 0, 0),
    }  # fmt: skip


ITEMS = [
    item("a", "1x1x5", labels(1, 1, 0, 0), labels(1, 1, 0, 0)),  # Dice 1 and 1
    item("a", "5x5x5", labels(1, 0, 0, 0), labels(1, 1, 1, 1)),  # 2/3 and 2/3
    item("b", "1x1x5", labels(1, 1, 0, 0), labels(0, 0, 1, 1)),  # 1 and 0
]


def test_rows_name_spacing_profile_and_level_and_the_summary_is_by_acquisition(tmp_path):
    metric = AcquisitionMetrics(["x"])
    engine = Engine(lambda engine, batch: batch)
    metric.attach(engine, "dice")
    PerCaseMetricsSaver(metric, str(tmp_path)).attach(engine)
    engine.run([[i] for i in ITEMS])
    rows = read(tmp_path / "metrics" / "per_case.csv")
    assert {(r["spacing"], r["level"]) for r in rows} == {("1x1x5", "1"), ("5x5x5", "2")}
    assert [(r["case"], r["spacing"], r["profile"], r["grid"], float(r["dice"])) for r in rows] == [
        ("a", "1x1x5", "gaussian", "native", 1), ("a", "1x1x5", "gaussian", "full", 1),
        ("a", "5x5x5", "gaussian", "native", 0.6667), ("a", "5x5x5", "gaussian", "full", 0.6667),
        ("b", "1x1x5", "gaussian", "native", 1), ("b", "1x1x5", "gaussian", "full", 0),
    ]  # fmt: skip
    summary = [r for r in read(tmp_path / "summary.csv") if (r["measure"], r["class"]) == ("dice", "mean")]
    assert {(r["acquisition"], r["grid"]): (float(r["mean"]), r["n"]) for r in summary} == {
        ("1x1x5 gaussian", "native"): (1, "2"), ("5x5x5 gaussian", "native"): (0.6667, "1"),
        ("1x1x5 gaussian", "full"): (0.5, "2"), ("5x5x5 gaussian", "full"): (0.6667, "1"),
    }  # fmt: skip
    # The value is the mean over acquisitions on the full grid: (1/2 + 2/3) / 2.
    assert engine.state.metrics["dice"] == pytest.approx(7 / 12)
    assert engine.state.metrics["dice_full_1x1x5_gaussian"] == pytest.approx(0.5)
