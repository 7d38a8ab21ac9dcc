"""Stray pieces of label maps are removed, said, and a reason for a review if they are large."""

import pytest
import torch
from monai.data import MetaTensor

from rare_unet_networks.inferers.whole_head import HeadNotes
from rare_unet_networks.transforms import KeepLargestPieced

NAMES = ["a", "b"]


def head(sides=("left", "right")):
    names = [f"{side} {name}" for side in ("left", "right") for name in NAMES]
    return HeadNotes(names, (0, 0, 0), (20, 6, 6), list(sides), 0.0, {}, {})


def labels(*boxes, size=(20, 6, 6)):
    """A label map of (class, first, last) boxes along the first axis, 2×2 voxels across."""
    x = torch.zeros(1, *size)
    for index, first, last in boxes:
        x[0, first:last, 2:4, 2:4] = index
    return x


def keep(*boxes, meta=None, fine=False, **options):
    meta = meta or {}
    data = {"pred": MetaTensor(labels(*boxes), meta=dict(meta))}
    if fine:
        data["pred_fine"] = MetaTensor(labels(*fine), meta=dict(meta))
    return KeepLargestPieced("pred", NAMES, **options)(data)


def test_the_largest_piece_of_all_classes_together_stays():
    # Pieces of 5, 2 and 1 slices: the first is of two classes, of which each alone has less than 5.
    result = keep((1, 0, 3), (2, 3, 5), (2, 8, 10), (1, 15, 16))["pred"]
    assert torch.equal(result.as_tensor(), labels((1, 0, 3), (2, 3, 5)))
    # 12 of 32 voxels, 2 pieces
    assert result.meta["removed"] == {"pieces": 2, "voxels": 12, "percent": 37.5}
    assert result.meta["review"] == [
        "2 stray piece(s) with 38 % of the volume were removed: the network may have been misled"
    ]


def test_a_small_piece_is_removed_without_a_reason_and_earlier_reasons_stay():
    result = keep((1, 0, 4), (2, 4, 10), (1, 15, 16), meta={"review": ["dark"], "doubt": 0.2})["pred"]
    assert torch.equal(result.as_tensor(), labels((1, 0, 4), (2, 4, 10)))
    assert result.meta["review"] == ["dark"] and result.meta["doubt"] == 0.2
    assert result.meta["removed"]["percent"] == pytest.approx(100 / 11)  # 1 of 11 slices


@pytest.mark.parametrize("max_percent, reasons", [(9.0, 1), (9.1, 0)])
def test_the_limit_is_an_argument(max_percent, reasons):
    result = keep((1, 0, 4), (2, 4, 10), (1, 15, 16), max_percent=max_percent)["pred"]
    assert len(result.meta["review"]) == reasons


def test_a_class_that_is_gone_with_its_piece_is_named():
    result = keep((1, 0, 11), (2, 15, 16))["pred"]
    assert result.meta["review"] == ["without the stray pieces no voxel is b"]


def test_without_stray_pieces_nothing_changes():
    result = keep((1, 0, 4), (2, 4, 6))["pred"]
    assert torch.equal(result.as_tensor(), labels((1, 0, 4), (2, 4, 6)))
    assert result.meta["removed"] == {"pieces": 0, "voxels": 0, "percent": 0.0} and result.meta["review"] == []


def test_an_empty_map_stays_empty():
    result = keep()["pred"]
    assert not result.any() and result.meta["removed"]["percent"] == 0


def test_both_grids_are_cleaned_and_the_finest_says_how_much():
    result = keep((1, 0, 4), (1, 8, 9), fine=[(1, 0, 2), (1, 8, 9)])
    assert torch.equal(result["pred"].as_tensor(), labels((1, 0, 4)))
    assert torch.equal(result["pred_fine"].as_tensor(), labels((1, 0, 2)))
    for prediction in result.values():
        assert prediction.meta["removed"]["percent"] == pytest.approx(100 / 3) and len(prediction.meta["review"]) == 1


def test_in_a_head_each_side_keeps_a_piece():
    # Left: 3 and 1 slices; right: 2 and 1. Together one side would be removed.
    boxes = [(1, 0, 3), (2, 4, 5), (3, 8, 10), (4, 12, 13)]
    result = keep(*boxes, meta={"head": head()})["pred"]
    assert torch.equal(result.as_tensor(), labels((1, 0, 3), (3, 8, 10)))
    assert result.meta["removed"]["pieces"] == 2
    assert result.meta["review"][1] == "without the stray pieces no voxel is left b, right b"


def test_in_a_head_with_one_side_the_other_is_not_missed():
    result = keep((1, 0, 3), (2, 3, 5), (1, 9, 10), meta={"head": head(["left"])})["pred"]
    assert torch.equal(result.as_tensor(), labels((1, 0, 3), (2, 3, 5)))
    assert not any("no voxel" in reason for reason in result.meta["review"])


def test_switched_off_it_does_nothing():
    result = keep((1, 0, 3), (1, 9, 10), is_on=False)["pred"]
    assert torch.equal(result.as_tensor(), labels((1, 0, 3), (1, 9, 10))) and "removed" not in result.meta


def test_a_structure_that_falls_apart_on_a_coarse_grid_is_one_piece_of_the_fine_one():
    """A line of 12 voxels along the first axis; on the coarse grid its middle third is missing."""
    fine = torch.zeros(1, 12, 4, 4)
    fine[0, :6, 0, 0], fine[0, 6:, 0, 0] = 1, 2
    fine[0, 5, 3, 3] = 1  # a stray voxel, also on the coarse grid
    coarse = torch.zeros(1, 6, 2, 2)
    coarse[0, :2, 0, 0], coarse[0, 4:, 0, 0], coarse[0, 2, 1, 1] = 1, 2, 0
    scale = torch.diag(torch.tensor([2.0, 2, 2, 1]))
    scale[:3, 3] = 0.5
    data = {"pred": MetaTensor(coarse, affine=scale), "pred_fine": MetaTensor(fine, affine=torch.eye(4))}
    result = KeepLargestPieced("pred", ["a", "b"])(data)
    assert result["pred_fine"].sum() == 6 + 12 and result["pred_fine"][0, 5, 3, 3] == 0
    assert torch.equal(result["pred"].as_tensor(), coarse)
    assert result["pred"].meta["removed"] == {"pieces": 1, "voxels": 1, "percent": pytest.approx(100 / 13)}
