import torch
from monai.data import MetaTensor

from rare_unet_networks.inferers.head_regions import (
    Region,
    cut_on_grid,
    cut_upright,
    joint_box,
    joint_probabilities,
    translation,
)

from .test_landmarks import turn

SPACING = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)


def ramps(size=(40, 30, 20)):
    """A scan whose voxels are their position along each axis in mm, in a channel per axis."""
    axes = [torch.arange(n) * s for n, s in zip(size, SPACING.float())]
    return MetaTensor(
        torch.stack(torch.meshgrid(*axes, indexing="ij"))[None], affine=torch.diag(torch.tensor([*SPACING, 1]))
    )


def test_a_box_is_cut_along_whole_voxels_and_ends_with_the_scan():
    region = cut_on_grid(ramps(), "left", torch.tensor([10.0, 30.0, 70.0]), torch.tensor([12.0, 20.0, 24.0]))
    # 4 to 16 mm lie in the voxels 4 to 16, 20 to 40 mm in 10 to 20, 58 to 82 mm in 15 to 20; the scan ends with 19.
    assert region.crop.shape[2:] == (13, 11, 5)
    start = [4, 10, 15]
    assert region.crop[0, :, 0, 0, 0].tolist() == [4.0, 20.0, 60.0]
    assert torch.equal(region.to_scan, translation(start))
    assert region.crop.affine[:3, 3].tolist() == [4.0, 20.0, 60.0]
    outside = cut_on_grid(ramps(), "left", torch.tensor([-50.0, 30.0, 30.0]), torch.tensor([10.0, 10.0, 12.0]))
    assert outside.crop.shape[2] == 1  # never empty


def test_an_upright_box_is_sampled_where_the_turned_head_is():
    rotation, centre, offset = (
        turn(30, 2),
        torch.tensor([20.0, 30.0, 40.0]).double(),
        torch.tensor([2.0, 0, 0]).double(),
    )
    region = cut_upright(ramps(), "left", centre, offset, torch.tensor([9.0, 5.0, 3.0]), rotation, [1.0, 1.0, 1.0])
    assert region.crop.shape[2:] == (9, 5, 3)
    middle, next_one = region.crop[0, :, 4, 2, 1].double(), region.crop[0, :, 5, 2, 1].double()
    torch.testing.assert_close(middle, centre + rotation @ offset, atol=1e-3, rtol=0)
    torch.testing.assert_close(next_one - middle, rotation[:, 0], atol=1e-3, rtol=0)
    world = region.crop.affine.double() @ torch.tensor([4.0, 2, 1, 1]).double()
    torch.testing.assert_close(world[:3], centre + rotation @ offset, atol=1e-6, rtol=0)


def test_fine_voxels_are_averaged_in_an_upright_box():
    checker = (torch.arange(24)[:, None, None] + torch.arange(24)[:, None] + torch.arange(24)) % 2
    scan = MetaTensor(checker[None, None].float(), affine=torch.diag(torch.tensor([0.5, 0.5, 0.5, 1])))
    centre, zero = torch.full((3,), 5.75).double(), torch.zeros(3).double()
    eye = torch.eye(3, dtype=torch.float64)
    region = cut_upright(scan, "left", centre, zero, torch.full((3,), 4.0).double(), eye, [1.0] * 3)
    torch.testing.assert_close(region.crop.as_tensor(), torch.full((1, 1, 4, 4, 4), 0.5))
    # Positions stay: a ramp of 0.5 mm voxels has its own value at each place.
    ramp = MetaTensor((torch.arange(24) * 0.5).reshape(1, 1, 24, 1, 1).expand(1, 1, 24, 24, 24), affine=scan.affine)
    region = cut_upright(ramp, "left", centre, zero, torch.full((3,), 4.0).double(), eye, [1.0] * 3)
    torch.testing.assert_close(region.crop[0, 0, :, 0, 0].as_tensor(), torch.tensor([4.25, 5.25, 6.25, 7.25]))


def region_at(side, start, size):
    return Region(side, MetaTensor(torch.zeros(1, 1, *size)), translation(start))


def test_boxes_are_joined_where_they_lie():
    left, right = region_at("left", (2, 3, 4), (4, 4, 4)), region_at("right", (8, 3, 4), (4, 5, 4))
    assert joint_box([left, right], (11, 20, 20)) == ([2, 3, 4], [11, 8, 8])
    logits = [torch.zeros(1, 3, 4, 4, 4), torch.zeros(1, 3, 4, 5, 4)]
    logits[0][0, 1, 0, 0, 0] = 50.0
    logits[1][0, 2, 1, 4, 3] = 50.0
    joined = joint_probabilities([left, right], logits, [1, 3], 5, translation((2, 3, 4)), (9, 5, 4)).exp()
    assert joined.shape == (1, 5, 9, 5, 4)
    torch.testing.assert_close(joined[0, :, 0, 0, 0], torch.tensor([1e-6, 1, 0, 0, 0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(joined[0, :, 7, 4, 3], torch.tensor([1e-6, 0, 0, 0, 1]), atol=1e-5, rtol=0)
    torch.testing.assert_close(joined[0, :, 1, 0, 0], torch.tensor([1, 1, 1, 0, 0]) / 3, atol=1e-5, rtol=0)
    torch.testing.assert_close(joined[0, :, 4, 0, 0], torch.tensor([1.0, 0, 0, 0, 0]), atol=1e-5, rtol=0)  # between


def test_a_box_on_a_finer_or_turned_grid_is_interpolated():
    left = region_at("left", (2, 3, 4), (4, 4, 4))
    logits = torch.zeros(1, 2, 8, 8, 8)  # twice as fine
    logits[0, 1] = 50.0
    joined = joint_probabilities([left], [logits], [1], 2, torch.eye(4).double(), (10, 10, 10)).exp()
    inside = torch.zeros(10, 10, 10)
    inside[2:6, 3:7, 4:8] = 1
    torch.testing.assert_close(joined[0, 1], inside, atol=1e-4, rtol=0)
    turned = torch.eye(4, dtype=torch.float64)
    turned[:3, :3] = turn(45, 2)
    turned[:3, 3] = torch.tensor([20.0, 20, 20])
    box = Region("left", MetaTensor(torch.zeros(1, 1, 12, 12, 12)), turned)
    logits = torch.zeros(1, 2, 12, 12, 12)
    logits[0, 1] = 50.0
    joined = joint_probabilities([box], [logits], [1], 2, torch.eye(4).double(), (40, 40, 40)).exp()
    assert abs(float(joined[0, 1].sum()) - 12**3) < 0.05 * 12**3
    # The box's centre, its voxel (5.5, 5.5, 5.5), lies at 20 + turned (5.5, 5.5) = (20, 27.8).
    weights = joined[0, 1] / joined[0, 1].sum()
    assert abs(float((weights.sum(dim=(1, 2)) * torch.arange(40)).sum()) - 20) < 0.1
    assert abs(float((weights.sum(dim=(0, 2)) * torch.arange(40)).sum()) - 27.78) < 0.1
