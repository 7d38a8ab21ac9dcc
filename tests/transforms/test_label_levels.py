"""Labelled scans of any voxel size: which levels they train, and on which grids."""

import pytest
import torch
from monai.data import MetaTensor

from rare_unet_networks.levels import ResolutionLevels
from rare_unet_networks.transforms import (
    FineLabeld,
    ForegroundStatisticsd,
    MultiResolutionPyramidd,
    RandAffineOfLeveld,
    ResampleToFineLabeld,
    ResampleToLabelLeveld,
    SimulateLowResolutiond,
)
from rare_unet_networks.utils.geometry import spacing_of

LEVELS = ResolutionLevels(4, (32, 64, 32), (1.0, 1.0, 1.0), rule="volume")


def scan(size, spacing, seed=0):
    """An image and a label of one grid; the label is 1 in the first half of the first axis."""
    affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
    torch.manual_seed(seed)
    label = torch.zeros(1, *size)
    label[:, : size[0] // 2] = 1
    image = MetaTensor(torch.rand(1, *size), affine=affine, meta={"filename_or_obj": "a.nii"})
    return {"image": image, "label": MetaTensor(label, affine=affine, meta={"filename_or_obj": "a.nii"})}


@pytest.mark.parametrize("spacing, level", [((1.0, 1.0, 1.0), 0), ((2.0, 2.1, 2.0), 1), ((8.0, 8.0, 8.0), 3)])
def test_a_scan_with_the_voxels_of_a_level_is_not_changed(spacing, level):
    data = scan((6, 8, 4), spacing)
    found = ResampleToLabelLeveld(LEVELS)(data)
    assert found["label_level"] == level
    assert found["image"] is data["image"] and found["label"] is data["label"]


def test_thick_slices_get_the_grid_of_the_level_they_enter():
    """1×1×5 mm enters at level 1: 8×8×3 voxels are 4×4×8 of 2 mm (15 mm are 7.5 voxels, rounded to 8)."""
    found = ResampleToLabelLeveld(LEVELS)(scan((8, 8, 3), (1.0, 1.0, 5.0)))
    assert found["label_level"] == 1
    assert found["image"].shape == found["label"].shape == (1, 4, 4, 8)
    assert spacing_of(found["label"].affine, 3) == pytest.approx([2.0, 2.0, 15 / 8])
    assert torch.equal(found["image"].affine, found["label"].affine)
    assert found["label"][0, :, 0, 0].tolist() == [1, 1, 0, 0]


def test_a_finer_label_becomes_the_majority_of_each_voxel_of_level_0():
    data = scan((4, 4, 4), (0.5, 0.5, 0.5))
    data["label"][0, 2] = torch.tensor([1.0, 1.0, 1.0, 0.0])  # of rows 2 and 3: 12 and 0 of 16 voxels; columns below
    found = ResampleToLabelLeveld(LEVELS)(data)
    assert found["label_level"] == 0 and found["image"].shape == (1, 2, 2, 2)
    # Each voxel has 8: row 0 is all 1; in row 1 columns 0 and 1 have 4 of 8 (a tie: background) and 2 of 8.
    assert found["label"].as_tensor().tolist() == [[[[1, 1], [1, 1]], [[0, 0], [0, 0]]]]


@pytest.mark.parametrize(
    "spacing, images, labels",
    [
        ((1.0, 1.0, 1.0), [0, 1, 2, 3], [0, 1, 2, 3]),
        ((2.0, 2.0, 2.0), [1, 2, 3], [1, 2, 3]),
        ((1.0, 1.0, 5.0), [1, 2, 3], [1, 2, 3]),
        ((4.0, 4.0, 4.0), [2, 3], [2, 3]),
        ((9.0, 9.0, 9.0), [3], [3]),
    ],
)
def test_a_label_trains_its_own_level_and_the_coarser_ones(spacing, images, labels):
    data = ResampleToLabelLeveld(LEVELS)(scan((9, 9, 9), spacing))
    found = MultiResolutionPyramidd("image", "label")(data)
    assert sorted(key for key in found if key != "label_level") == sorted(
        [*(f"image_{d}" for d in images), *(f"label_{d}" for d in labels)]
    )
    for level in images:  # every level covers the same extent, of whole blocks of 8 mm
        finest = found[f"image_{images[0]}"].shape[1:]
        assert tuple(found[f"image_{level}"].shape[1:]) == tuple(n >> (level - images[0]) for n in finest)


def test_coarse_levels_are_means_of_blocks_of_the_scan():
    data = ResampleToLabelLeveld(LEVELS)(scan((8, 8, 8), (2.0, 2.0, 2.0)))
    found = MultiResolutionPyramidd("image", "label")(data)
    assert torch.equal(found["image_1"].as_tensor(), data["image"].as_tensor())
    means = data["image"].as_tensor().reshape(4, 2, 4, 2, 4, 2).mean(dim=(1, 3, 5))
    torch.testing.assert_close(found["image_2"][0].as_tensor(), means)
    assert found["label_3"][0, :, 0, 0].tolist() == [1, 0]  # 8 voxels of 2 mm are 2 of 8 mm


def test_a_label_coarser_than_all_levels_of_a_training_is_refused():
    data = ResampleToLabelLeveld(LEVELS)(scan((4, 4, 4), (4.0, 4.0, 4.0)))
    with pytest.raises(ValueError, match=r"a.nii: its label is too coarse, it trains level 2 .* training has \[0, 1\]"):
        MultiResolutionPyramidd("image", "label", levels=[0, 1])(data)


def test_a_network_of_one_level_names_the_file():
    levels = ResolutionLevels(1, (32, 64, 32), (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match=r"a.nii: a labelled scan must have voxels of at most 1×1×1 mm"):
        ResampleToLabelLeveld(levels)(scan((4, 4, 4), (2.0, 2.0, 2.0)))


def test_statistics_of_a_coarse_scan_start_at_its_level():
    """At 2 mm, statistics of level 1 are those of its own voxels, those of level 2 of blocks of two."""
    scan_of_one_axis = torch.tensor([1.0, 3.0, 5.0, 7.0]).reshape(1, 4, 1, 1).repeat(1, 1, 2, 2)
    found = ForegroundStatisticsd("image", 3)({"image": scan_of_one_axis, "label_level": 1})["image_statistics"]
    assert found[:, 0, 0].tolist() == [4.0, 4.0, 4.0]
    # Deviations of 1, 3, 5, 7 from 4: √5; of 2 and 6: 2.
    assert found[:, 1, 0].tolist() == pytest.approx([5**0.5, 5**0.5, 2.0])


@pytest.mark.parametrize("level, shift", [(0, 4), (1, 2), (2, 1)])
def test_a_translation_is_as_long_in_mm_on_every_grid(level, shift):
    transform = RandAffineOfLeveld(
        "image", prob=1.0, translate_range=[(4.0, 4.0), (0.0, 0.0), (0.0, 0.0)], mode="nearest", padding_mode="zeros"
    )
    row = torch.arange(8.0).reshape(1, 8, 1, 1).repeat(1, 1, 3, 3)
    for _ in range(2):  # the range is as before after each scan
        moved = transform({"image": row, "label_level": level})["image"]
        assert moved[0, : 8 - shift, 1, 1].tolist() == list(range(shift, 8))
    assert torch.equal(transform({"image": row})["image"].as_tensor()[0, :4, 1, 1], torch.arange(4.0, 8.0))


def test_only_a_fine_label_is_compared_on_the_grid_of_level_0():
    fine, finer, coarse = (FineLabeld(LEVELS)(scan((4, 4, 4), (s,) * 3)) for s in (1.0, 0.5, 2.0))
    assert torch.equal(fine["label_fine"], fine["label"]) and fine["label_fine"] is not fine["label"]
    assert finer["label_fine"].shape == (1, 2, 2, 2)
    assert "label_fine" not in coarse
    prediction = scan((8, 8, 8), (1.0, 1.0, 1.0))["label"]
    kept = ResampleToFineLabeld()({**coarse, "pred_fine": prediction})
    assert kept["pred_fine"] is prediction
    assert ResampleToFineLabeld()({**finer, "pred_fine": prediction})["pred_fine"].shape == (1, 2, 2, 2)


def test_a_scan_of_2_mm_is_itself_at_level_1_and_coarsened_below():
    data = scan((8, 8, 8), (2.0, 2.0, 2.0))
    simulate = SimulateLowResolutiond("image", "label", levels=LEVELS)
    assert simulate({**data, "level": 1})["image"] is data["image"]
    coarse = simulate({**data, "level": 2})
    assert coarse["image"].shape == (1, 4, 4, 4) and spacing_of(coarse["label"].affine, 3) == [4.0] * 3
    assert coarse["label"][0, :, 0, 0].tolist() == [1, 1, 0, 0]
    with pytest.raises(ValueError, match=r"a.nii: level must be at least its own, 1, got 0"):
        simulate({**data, "level": 0})
