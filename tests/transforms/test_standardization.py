"""Statistics of a whole scan, and a patch standardised by them."""

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import DivisiblePad, NormalizeIntensity

from rare_unet_networks.transforms.intensity import ForegroundStatisticsd, StandardizeForegroundd
from rare_unet_networks.utils.coarsening import coarsen

# 4×4 voxels, a head of four: its left blocks at half the resolution have means (2 + 4) / 4 and (6 + 8) / 4.
SCAN = torch.tensor([[0.0, 2.0, 0.0, 0.0], [0.0, 4.0, 0.0, 0.0], [0.0, 6.0, 0.0, 0.0], [0.0, 8.0, 0.0, 0.0]])


def test_statistics_by_hand():
    """Level 0: 2, 4, 6, 8; level 1: 1.5, 3.5; level 2: one block, 20 / 16. An empty channel: 0 and 1."""
    data = {"image": MetaTensor(torch.stack([SCAN, torch.zeros(4, 4)]))}
    statistics = ForegroundStatisticsd("image", num_levels=3)(data)["image_statistics"]
    means, stds = statistics[:, 0], statistics[:, 1]
    assert means.T.tolist() == [[5.0, 2.5, 1.25], [0.0, 0.0, 0.0]]
    assert stds[:, 0].tolist() == pytest.approx([5**0.5, 1.0, 1.0])  # one voxel alone has no deviation: 1
    assert stds[:, 1].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("size", [(16, 8, 8), (15, 9, 7)])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_on_an_uncut_scan_as_monai(size, level):
    """An odd size is padded with zeros to whole blocks, as a coarse scan's is."""
    generator = torch.Generator().manual_seed(0)
    scan = torch.rand(3, *size, generator=generator) + 0.1
    scan[:, :5] = 0
    scan[2] = 0
    data = ForegroundStatisticsd("image", num_levels=3)({"image": MetaTensor(scan)})
    data["image_l"] = coarsen(DivisiblePad(2**level, method="end")(data["image"]), 2**level)
    ours = StandardizeForegroundd("image_l", levels=[level])(data)["image_l"]
    monai = NormalizeIntensity(nonzero=True, channel_wise=True)(data["image_l"])
    torch.testing.assert_close(ours.as_tensor(), monai.as_tensor())


def test_a_patch_keeps_its_place_in_the_scan():
    """The patch of 6 and 8 lies above the scan's mean of 5; by its own statistics it would be centred on 0."""
    data = ForegroundStatisticsd("image", num_levels=1)({"image": MetaTensor(SCAN[None])})
    data["image"] = data["image"][:, 2:]
    patch = StandardizeForegroundd("image", levels=[0])(data)["image"]
    assert patch[0, :, 1].tolist() == pytest.approx([1 / 5**0.5, 3 / 5**0.5])
    assert torch.equal(patch[0, :, 0].as_tensor(), torch.zeros(2))  # outside the head stays 0


def test_the_level_of_the_case():
    data = {"image": MetaTensor(SCAN[None, :2]), "level": 1, "image_statistics": torch.zeros(2, 2, 1)}
    data["image_statistics"][:, 1] = torch.tensor([[1.0], [2.0]])  # twice the deviation at level 1
    assert StandardizeForegroundd("image")(data)["image"][0, :, 1].tolist() == [1.0, 2.0]


def test_levels_must_match_keys():
    with pytest.raises(ValueError, match=r"levels must be one per key, 2, got \[0\]"):
        StandardizeForegroundd(["a", "b"], levels=[0])
