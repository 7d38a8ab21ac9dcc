import logging

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.data.utils import decollate_batch, list_data_collate
from monai.transforms import ScaleIntensityRangePercentilesd

from rare_unet_networks.inferers import HIPPOCAMPI, Landmarks, MirrorInferer, ResolutionRoutingInferer, WholeHeadInferer
from rare_unet_networks.levels import ResolutionLevels
from rare_unet_networks.networks import Prediction
from rare_unet_networks.transforms import ResampleToBothGridsd

from .test_landmarks import turn

LEVELS = ResolutionLevels(num_levels=4, spatial_size=(32, 64, 32), spacing=(1.0, 1.0, 1.0))
SIZE = (120, 100, 90)  # mm
MIDDLE = np.array([60.0, 50.0, 45.0])  # between both, mm from the corner
NAMES = ["left anterior", "left posterior", "right anterior", "right posterior"]


class ByIntensity(torch.nn.Module):
    """Anterior from 0.4 to 0.75, posterior above; keeps what it sees."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x, level=0, output="scan"):
        self.seen.append((level, x.clone()))
        foreground = [1 - 20 * (x - 0.57).abs() / 0.17, 20 * (x - 0.8)]
        y = torch.cat([torch.zeros_like(x), *foreground], dim=1).clamp(-20, 20) * 5
        fine = torch.nn.functional.interpolate(y, scale_factor=2**level)
        return {"scan": y, "fine": fine, "both": Prediction(y, fine)}[output]


def unscaled(data):
    return data


def labels(points, rotation=None):
    """Classes of points in mm, shape (..., 3): four boxes of 12×10×8 mm at the template's places."""
    offsets = (points - MIDDLE) @ (np.eye(3) if rotation is None else rotation.numpy())
    result = np.zeros(points.shape[:-1], int)
    for index, place in enumerate(HIPPOCAMPI.points().numpy(), start=1):
        inside = (np.abs(offsets - place) < np.array([6.0, 5.0, 4.0])).all(axis=-1)
        result[inside] = index
    return result


def head(spacing=(1.0, 1.0, 1.0), rotation=None, size=SIZE):
    """A head as a batch, and its classes on its grid; a voxel shows what is at its centre."""
    voxels = [round(n / s) for n, s in zip(size, spacing)]
    axes = [(np.arange(n) + 0.5) * s for n, s in zip(voxels, spacing)]
    truth = labels(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1), rotation)
    image = np.array([0.0, 0.57, 1.0, 0.57, 1.0])[truth]
    affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
    affine[:3, 3] = torch.tensor([-60.0, -50, 30])
    item = {"image": MetaTensor(torch.from_numpy(image)[None].float(), affine=affine)}
    return list_data_collate([item])["image"], torch.from_numpy(truth)


def locate_at(rotation=None, spacing=(1.0, 1.0, 1.0), without=()):
    turned = torch.eye(3, dtype=torch.float64) if rotation is None else rotation
    points = HIPPOCAMPI.points() @ turned.T + torch.from_numpy(MIDDLE) - torch.tensor(spacing) / 2
    points[list(without)] = torch.nan
    return lambda scan: Landmarks(points, torch.ones(4))


def inferer(output="both", locate=None, **options):
    base = ResolutionRoutingInferer(LEVELS, output=output)
    return WholeHeadInferer(base, locate or locate_at(), scaling=options.pop("scaling", unscaled), **options)


def on_both_grids(image, predictions):
    item = {"image": image[0], "pred": {k: decollate_batch(v)[0] for k, v in predictions.items()}}
    result = ResampleToBothGridsd("pred")(item)
    return result["pred"], result["pred_fine"]


def dice(a, b):
    return [float(2 * ((a == k) & (b == k)).sum() / ((a == k).sum() + (b == k).sum())) for k in range(1, 5)]


def test_both_sides_get_their_own_classes_on_the_grid_of_the_head():
    image, truth = head()
    affine = image.affine.clone()
    net = ByIntensity()
    predictions = inferer()(image, net)
    assert torch.equal(image.affine, affine)
    notes = predictions["pred"].meta["head"]
    assert notes.class_names == NAMES and notes.sides == ["left", "right"] and notes.reasons == []
    assert notes.classes() == dict(enumerate(NAMES, start=1)) and notes.turned < 0.1
    assert notes.centres["left"] == pytest.approx([60 - 25 - 60 - 0.5, 50 - 50 - 0.5, 45 + 30 - 0.5], abs=0.1)
    pred, fine = on_both_grids(image, predictions)
    assert pred.shape == (5, *SIZE) and torch.equal(pred.affine, affine[0])
    assert torch.equal(pred.argmax(dim=0).as_tensor(), truth)
    assert (
        fine.argmax(dim=0).as_tensor().flatten().bincount(minlength=5)[1:].tolist()
        == truth.flatten().bincount(minlength=5)[1:].tolist()
    )
    # The network saw two boxes, the right one mirrored: its structure lies as in the left one, to a voxel.
    left, right = ((seen > 0.9).nonzero().double().mean(dim=0) for _, seen in net.seen)
    assert float((left - right).abs().max()) <= 1


def test_a_head_that_was_not_collated_is_placed_alike():
    """MONAI Label adds an axis to the scan, and its prediction goes to ``decollate_batch``, which splits the affine."""
    image, _ = head((2.0, 2.0, 2.0))
    expected = on_both_grids(image, inferer()(image, ByIntensity()))
    scan = decollate_batch(image)[0]
    prediction = decollate_batch(inferer()(scan[None], ByIntensity()))[0]
    result = ResampleToBothGridsd("pred")({"image": scan, "pred": prediction})
    for name, on_grid in zip(("pred", "pred_fine"), expected):
        assert torch.equal(result[name].as_tensor(), on_grid.as_tensor())
        torch.testing.assert_close(result[name].affine, on_grid.affine)


@pytest.mark.parametrize(
    "spacing, output, least",
    [
        ((2.0, 2.0, 2.0), "scan", 0.95),
        ((2.0, 2.0, 2.0), "fine", 0.95),
        ((4.0, 4.0, 4.0), "both", 0.95),
        # Interpolated edges of the posterior boxes are as dark as the anterior ones.
        ((1.0, 1.0, 3.0), "both", 0.75),
        ((0.7, 0.7, 0.7), "both", 0.65),
        ((0.7, 0.7, 0.7), "scan", 0.65),
        ((1.5, 1.0, 1.0), "both", 0.75),
    ],
)
def test_heads_of_any_spacing(spacing, output, least):
    image, truth = head(spacing)
    predictions = inferer(output, locate_at(spacing=spacing))(image, ByIntensity())
    predictions = predictions if output == "both" else {"pred_fine" if output == "fine" else "pred": predictions}
    pred, fine = on_both_grids(image, predictions)
    assert min(dice(pred.argmax(dim=0).as_tensor(), truth)) > least
    assert fine.shape[0] == 5
    # The box of 1 mm voxels lies where the head shows it; the posterior class is the one that no edge looks like.
    index = (fine.argmax(dim=0).as_tensor() == 2).nonzero().double().mean(dim=0)
    world = fine.affine[:3, :3] @ index + fine.affine[:3, 3]
    corner = torch.tensor([-60.0, -50, 30]) - torch.tensor(spacing) / 2
    expected = HIPPOCAMPI.points()[1] + torch.from_numpy(MIDDLE) + corner
    assert float((world - expected).abs().max()) < max(0.6, 0.6 * max(spacing))


@pytest.mark.parametrize("output", ["scan", "both"])
def test_a_turned_head_is_segmented_upright_and_turned_back(output):
    rotation = turn(35, 2)
    image, truth = head(rotation=rotation)
    net = ByIntensity()
    predictions = inferer(output, locate_at(rotation))(image, net)
    predictions = predictions if output == "both" else {"pred": predictions}
    assert list(predictions) == (["pred_fine"] if output == "both" else ["pred"])
    notes = next(iter(predictions.values())).meta["head"]
    assert notes.turned == pytest.approx(35, abs=1) and notes.reasons == []
    pred, _ = on_both_grids(image, predictions)
    got = pred.argmax(dim=0).as_tensor()
    assert min(dice(got, truth)) > 0.75  # edges, see above
    for label in range(1, 5):
        offset = (got == label).nonzero().double().mean(dim=0) - (truth == label).nonzero().double().mean(dim=0)
        assert float(offset.norm()) < 0.5
    # What the network saw is the upright head's box.
    upright = ByIntensity()
    inferer(output)(head()[0], upright)
    assert float((net.seen[0][1] - upright.seen[0][1]).abs().mean()) < 0.02


def test_a_crop_is_predicted_as_by_the_mirror_inferer():
    scaling = ScaleIntensityRangePercentilesd("image", 0.5, 99.5, 0.0, 1.0, clip=True, channel_wise=True)
    crop = MetaTensor(torch.rand(1, 1, 36, 50, 36, generator=torch.Generator().manual_seed(0)), affine=torch.eye(4))
    base = ResolutionRoutingInferer(LEVELS, output="both")
    expected = MirrorInferer(base, scaling=scaling)(crop, ByIntensity())
    never = lambda scan: pytest.fail("a crop is not searched")  # noqa: E731
    got = WholeHeadInferer(base, never, scaling=scaling)(crop, ByIntensity())
    for key in ("pred", "pred_fine"):
        assert torch.equal(got[key].as_tensor(), expected[key].as_tensor())
        assert got[key].meta["side"] == expected[key].meta["side"] and "head" not in got[key].meta


@pytest.mark.parametrize(
    "field_of_view, size, is_head",
    [("auto", (36, 50, 36), False), ("auto", (36, 81, 36), True), ("head", (36, 50, 36), True), ("crop", SIZE, False)],
)
def test_the_field_of_view_decides_and_the_log_says_so(field_of_view, size, is_head, caplog):
    caplog.set_level(logging.DEBUG, "rare_unet_networks.inferers")
    image = MetaTensor(torch.zeros(1, 1, *size), affine=torch.eye(4))
    calls = []

    def locate(scan):
        calls.append(scan.shape)
        return Landmarks(torch.full((4, 3), torch.nan), torch.zeros(4))

    segment = inferer(locate=locate, field_of_view=field_of_view, side="left")
    if is_head:
        with pytest.raises(ValueError, match="expected a left or right structure in the whole head, found none"):
            segment(image, ByIntensity())
    else:
        segment(image, ByIntensity())
    assert len(calls) == is_head
    why = "auto: longer than 80 mm or not" if field_of_view == "auto" else "as told"
    what = "whole head" if is_head else "crop"
    assert f"field of view {'×'.join(map(str, size))} mm, taken as a {what} ({why})" in caplog.text


def test_a_head_that_shows_one_side_says_so():
    image, truth = head()
    predictions = inferer(locate=locate_at(without=(2, 3)))(image, ByIntensity())
    notes = predictions["pred"].meta["head"]
    assert notes.reasons == ["the right one was not found: it is not in the scan"]
    assert notes.classes() == {1: "left anterior", 2: "left posterior"}
    pred, _ = on_both_grids(image, predictions)
    expected = torch.where(truth < 3, truth, 0)
    assert torch.equal(pred.argmax(dim=0).as_tensor(), expected)


def test_what_reaches_the_border_of_its_box_is_named():
    image, _ = head()
    image[..., :] = 0.57
    notes = inferer()(image, ByIntensity())["pred"].meta["head"]
    assert notes.reasons == [
        f"the prediction of the {side} one touches the border of its box: it may be cut" for side in ("left", "right")
    ]


def test_wrong_arguments_are_errors():
    with pytest.raises(ValueError, match=r"field_of_view must be one of \('auto', 'head', 'crop'\), got 'whole'"):
        inferer(field_of_view="whole")
    with pytest.raises(ValueError, match="scaling must be the transform"):
        inferer(scaling=None, side="left")
    image, _ = head()
    two = MetaTensor(torch.cat([image.as_tensor()] * 2), affine=image.affine)
    with pytest.raises(ValueError, match="a whole head must be alone in its batch, got 2 scans"):
        inferer()(two, ByIntensity())
