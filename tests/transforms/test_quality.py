"""Review of a prediction without its label. The doubt of real volumes is in tests/bundles/test_review.py."""

import logging
import math
import re

import pytest
import torch
from monai.data import MetaTensor

from rare_unet_networks.levels import ResolutionLevels
from rare_unet_networks.transforms import CheckFinited, ReviewPredictiond
from rare_unet_networks.utils.quality import doubt, slices_through, touches_border

LEVELS = ResolutionLevels(num_levels=4, spacing=(1.0, 1.0, 1.0))
NAMES = ["front", "back"]


def test_doubt_is_the_entropy_per_expected_voxel_of_foreground():
    """Of 8 voxels two are halved between two classes, ln 2 nats each; half of the other member's four are, too."""
    p = torch.zeros(2, 3, 2, 2, 2)
    p[:, 0] = 1
    p[0, :, 0, 0] = torch.tensor([0.5, 0.5, 0])[:, None]  # 2 voxels, 1 expected voxel of foreground
    p[1, :, 0] = torch.tensor([0.0, 0.5, 0.5])[:, None, None]
    p[1, :, 0, 1] = torch.tensor([0.0, 1.0, 0.0])[:, None]  # 4 voxels of foreground, 2 of them certain
    torch.testing.assert_close(doubt(p), torch.tensor([2 * math.log(2), math.log(2) / 2]))


def test_doubt_without_any_foreground_is_no_division_by_0():
    p = torch.zeros(1, 3, 2, 2, 2)
    p[:, 0] = 1
    assert float(doubt(p)) == 0
    p[:, :2] = torch.tensor([1 - 1e-4, 1e-4])[:, None, None, None]
    assert float(doubt(p)) > 10


@pytest.mark.parametrize(
    "voxel, touches", [((1, 1, 1), False), ((0, 1, 1), True), ((1, 2, 3), True), ((2, 3, 1), True)]
)
def test_a_prediction_touches_the_border_in_an_outermost_layer(voxel, touches):
    labels = torch.zeros(4, 4, 4, dtype=torch.uint8)
    labels[1:3, 1:3, 1:3] = 1
    labels[voxel] = 2
    assert touches_border(labels) == touches


def test_slices_are_counted_in_those_of_the_scan():
    labels = torch.zeros(30, 30, 30)
    labels[5:25, 10:13, 7] = 1  # 20×3×1 mm
    assert slices_through(labels, (1, 1, 1), (1, 1.5, 4)) == [20, 2, 0.25]


def case(labels, spacing=(1.0, 1.0, 1.0), certainty=0.99, fine=True, levels=LEVELS, **meta):
    """Probabilities of a label map of 1 mm, on the grid of a scan of another spacing and on its own."""
    p = torch.full((3, *labels.shape), (1 - certainty) / 2).scatter(0, labels[None], certainty)
    size = [max(1, round(n / s)) for n, s in zip(labels.shape, spacing)]
    affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
    image = MetaTensor(torch.rand(1, *size), affine=affine, meta={"filename_or_obj": "a.nii.gz", **meta})
    native = torch.nn.functional.interpolate(p[None], size)[0]
    d = {"image": image, "pred": MetaTensor(native, affine=affine, meta={"route": levels.route(image[None])})}
    return {**d, "pred_fine": MetaTensor(p, affine=torch.eye(4, dtype=torch.float64))} if fine else d


def structure():
    """A structure of 12×16×16 mm in 24×32×32."""
    labels = torch.zeros(24, 32, 32, dtype=torch.int64)
    labels[6:18, 8:16, 8:24] = 1
    labels[6:18, 16:24, 8:24] = 2
    return labels


def review(d, caplog, **options):
    with caplog.at_level(logging.WARNING):
        d = ReviewPredictiond("pred", LEVELS, NAMES, **options)(d)
    for key in {"pred", "pred_fine"} & set(d):
        assert d[key].meta["review"] == d["pred"].meta["review"] and d[key].meta["doubt"] == d["pred"].meta["doubt"]
    return d["pred"].meta["review"]


@pytest.mark.parametrize("fine", [True, False])
def test_a_good_prediction_has_no_reason_to_be_reviewed(caplog, fine):
    d = case(structure(), fine=fine)
    expected = float(doubt(d["pred"].as_tensor()[None]))
    assert review(d, caplog, doubt_limit=[2.0, None, None, None]) == [] and not caplog.records
    assert d["pred"].meta["doubt"] == pytest.approx(expected) and 0.1 < expected < 2


def border(labels):
    labels[:8, 8:16, 8:24] = 1


def empty(labels):
    labels[labels == 2] = 0


def nothing(labels):
    labels[:] = 0


def thin(labels):
    labels[labels > 0] = 0
    labels[10:14, 8:16, 8:24] = 1
    labels[10:14, 16:24, 8:24] = 2


@pytest.mark.parametrize(
    "change, options, reasons",
    [
        (border, {}, ["the prediction touches the border of the scan: the structure may be cut"]),
        (empty, {}, ["no voxel is back"]),
        (nothing, {}, ["the network doubts", "no voxel is front, back"]),
        (None, {"spacing": (1.0, 1.0, 9.0)}, ["slices only", "coarser than the coarsest level's, 8×8×8 mm"]),
        (None, {"spacing": (1.0, 1.0, 8.0)}, ["its slices are 8 times as thick as its voxels are wide"]),
        (None, {"spacing": (1.0, 1.0, 7.0)}, []),
        (thin, {"spacing": (4.0, 4.0, 4.0)}, ["extends over 1.0 slices only"]),
        (thin, {"spacing": (2.0, 2.0, 2.0)}, []),
        (None, {"certainty": 0.6}, [r"the network doubts its prediction \(\d"]),
        (None, {"warnings": "turned by 30 degrees\nfield of view"}, ["turned by 30 degrees", "field of view"]),
    ],
)
def test_each_reason_to_review_is_logged_with_the_file_and_noted(caplog, change, options, reasons):
    labels = structure()
    if change:
        change(labels)
    found = review(case(labels, **options), caplog, doubt_limit=[2.0] * 4)
    assert len(found) == len(reasons)
    for text, reason in zip(found, reasons):
        assert re.search(reason, text)
        logged = f"a.nii.gz: {text}" in caplog.messages
        assert logged == (text not in options.get("warnings", "") and "do not trust" not in text)


@pytest.mark.parametrize("margin, is_uncertain", [(0.049, True), (0.05, False), (0.8, False), (None, False)])
def test_sides_that_look_alike_are_a_reason(caplog, margin, is_uncertain):
    d = case(structure())
    if margin is not None:
        d["pred"].meta["side_margin"] = margin
    reasons = review(d, caplog)
    alike = "left and right look nearly alike (their doubt differs by 0.05): check the side, or give it with --side"
    assert reasons == [alike] * is_uncertain


@pytest.mark.parametrize(
    "spacing, limit",
    [((1, 1, 1), 0.1), ((1.4, 1, 1), 0.1), ((2, 2, 2), 0.2), ((1, 1, 4), 0.3), ((0.4, 0.4, 4), 0.3), ((4, 4, 8), None)],
)
def test_the_limit_is_the_largest_of_the_levels_between_the_finest_and_the_coarsest_axis(spacing, limit):
    transform = ReviewPredictiond("pred", LEVELS, NAMES, doubt_limit=[0.1, 0.2, 0.3, None])
    image = MetaTensor(torch.zeros(1, 1, 8, 8, 8), affine=torch.diag(torch.tensor([*spacing, 1.0])))
    assert transform._limit(LEVELS.route(image)) == limit


@pytest.mark.parametrize(
    "limits, reasons", [([0.0, 9.0, 0.0, 0.0], []), ([9.0, 0.0, 9.0, 9.0], ["the network doubts"])]
)
@pytest.mark.parametrize("spacing", [None, (1.0, 1.0, 1.0)])
def test_a_scan_placed_by_its_size_is_reviewed_at_that_level_and_never_too_coarse(caplog, spacing, limits, reasons):
    """24×32×4 voxels of 1×1×9 mm would be too coarse by spacing; by size this is level 1 of 48×64×8 voxels."""
    levels = ResolutionLevels(num_levels=4, spatial_size=(48, 64, 8), spacing=spacing, routing="size")
    d = case(structure(), spacing=(1.0, 1.0, 9.0), levels=levels)
    assert d["pred"].meta["route"].level == 1
    d = ReviewPredictiond("pred", levels, NAMES, doubt_limit=limits, min_slices=0)(d)
    review = d["pred"].meta["review"]
    assert len(review) == len(reasons) and all(reason in text for reason, text in zip(reasons, review))


def test_a_prediction_without_a_route_is_refused():
    d = case(structure())
    del d["pred"].meta["route"]
    with pytest.raises(ValueError, match="pred must carry the inferer's route in its metadata, got none"):
        ReviewPredictiond("pred", LEVELS, NAMES)(d)


def test_as_many_limits_as_levels_are_needed():
    with pytest.raises(ValueError, match=r"doubt_limit must have 4 entries, one by level, got \[0.3\]"):
        ReviewPredictiond("pred", LEVELS, NAMES, doubt_limit=[0.3])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("by_grid", [True, False])
def test_logits_that_are_not_finite_are_refused(value, by_grid):
    logits = torch.rand(3, 4, 4, 4)
    pred = {"pred": torch.rand(3, 2, 2, 2), "pred_fine": logits} if by_grid else logits
    assert CheckFinited("pred")({"pred": pred})["pred"] is pred
    logits[1, 2, 3, 0] = value
    with pytest.raises(ValueError, match="values that are NaN or infinite"):
        CheckFinited("pred")({"pred": pred})
