import pytest
import torch
from monai.data import MetaTensor

from rare_unet_networks.transforms import RandMarginCropd


def case():
    """A scan of 20×20×20 voxels, with a structure in voxels 6 to 9 of each axis."""
    label = torch.zeros(1, 20, 20, 20)
    label[:, 6:10, 6:10, 6:10] = 1
    return {"image": MetaTensor(torch.arange(8000.0).reshape(1, 20, 20, 20)), "label": MetaTensor(label)}


@pytest.mark.parametrize(
    "margin, start, size",
    [
        ((2, 2), 4, 8),
        ((0, 0), 6, 4),
        ((-1, -1), 7, 2),  # cuts the structure
        ((8, 8), 0, 18),  # the scan ends 6 voxels before the structure: voxels 0 to 17
        ((-9, -9), 15, 1),  # at least one voxel is left
    ],
)
def test_the_box_by_hand(margin, start, size):
    cropped = RandMarginCropd(["image", "label"], margin=margin)(case())
    assert cropped["image"].shape == cropped["label"].shape == (1, size, size, size)
    assert cropped["image"][0, 0, 0, 0] == case()["image"][0, start, start, start]
    assert cropped["image"].affine[:3, 3].tolist() == [start] * 3


def test_faces_have_independent_margins_within_the_range():
    crop = RandMarginCropd(["image", "label"], margin=(1, 5)).set_random_state(0)
    seen = set()
    for _ in range(30):
        label = crop(case())["label"][0].sum(dim=(1, 2)).nonzero()
        before, after = int(label.min()), int(crop(case())["label"].shape[1])
        seen.add(before)
        assert 1 <= before <= 5 and 6 <= after <= 14
    assert seen == {1, 2, 3, 4, 5}


def test_without_a_structure_or_by_chance_nothing_is_cropped():
    empty = {**case(), "label": MetaTensor(torch.zeros(1, 20, 20, 20))}
    assert RandMarginCropd(["image", "label"], margin=(1, 1))(empty)["image"].shape == (1, 20, 20, 20)
    assert RandMarginCropd(["image", "label"], margin=(1, 1), prob=0)(case())["image"].shape == (1, 20, 20, 20)


def test_a_margin_that_is_no_range_is_refused():
    with pytest.raises(ValueError, match=r"margin must be a range .* got \(5, 1\)"):
        RandMarginCropd("image", margin=(5, 1))
