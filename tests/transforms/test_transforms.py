import pytest
import torch
from monai.data import MetaTensor

from rare_unet_networks.levels import ResolutionLevels
from rare_unet_networks.transforms.anisotropy import RandAnisotropyd
from rare_unet_networks.transforms.low_resolution import (
    MultiResolutionPyramidd,
    PadPyramidd,
    SimulateLowResolutiond,
)
from rare_unet_networks.utils.coarsening import coarsen, coarsen_label

# 1 mm grid whose first voxel lies at (10, 20, 30) mm; a block of 8×8×8 voxels, from 8 to 15 on every axis, has its
# centre at voxel 11.5, that is at (21.5, 31.5, 41.5) mm.
AFFINE = torch.tensor([[1.0, 0, 0, 10], [0, 1, 0, 20], [0, 0, 1, 30], [0, 0, 0, 1]], dtype=torch.float64)
CENTRE = (21.5, 31.5, 41.5)


def cube(size=(32, 32, 32)):
    mask = torch.zeros(1, *size)
    mask[:, 8:16, 8:16, 8:16] = 1
    return MetaTensor(mask, affine=AFFINE)


def centre_mm(image):
    weights = image[0].as_tensor().double()
    grid = torch.stack(torch.meshgrid(*(torch.arange(n) for n in weights.shape), indexing="ij")).double()
    voxel = (grid * weights).flatten(1).sum(dim=1) / weights.sum()
    return (image.affine.double() @ torch.cat([voxel, torch.ones(1, dtype=torch.float64)]))[:3].tolist()


@pytest.mark.parametrize("level", [0, 1, 2, 3])
@pytest.mark.parametrize("mode", ["mean", "trilinear"])
def test_coarse_image_keeps_the_shape_in_place(level, mode):
    coarse = coarsen(cube(), 2**level, mode=mode)
    assert coarse.shape == (1, *(32 >> level,) * 3)
    assert coarse.pixdim.tolist() == [2.0**level] * 3
    assert centre_mm(coarse) == pytest.approx(CENTRE)


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_coarse_label_by_majority_keeps_the_shape_in_place_and_shares_the_images_grid(level):
    coarse = coarsen_label(cube(), 2**level)
    assert centre_mm(coarse) == pytest.approx(CENTRE)
    torch.testing.assert_close(coarse.affine, coarsen(cube(), 2**level).affine)
    assert int(coarse.sum()) == (8 >> level) ** 3


@pytest.mark.parametrize("level", [1, 2])
def test_nearest_labels_are_the_first_voxel_of_each_block(level):
    label = MetaTensor(torch.arange(512.0).reshape(1, 8, 8, 8) % 3, affine=AFFINE)
    step = 2**level
    assert torch.equal(coarsen_label(label, step, "nearest").as_tensor(), label.as_tensor()[:, ::step, ::step, ::step])


def test_image_mean_and_label_majority_of_a_block_by_hand():
    image = MetaTensor(torch.tensor([1.0, 2, 3, 4, 5, 6, 7, 12]).reshape(1, 2, 2, 2))
    assert float(coarsen(image, 2)) == 5.0
    # Three of class 2, three of class 0, two of class 1: a tie of 0 and 2 goes to 0.
    tie = MetaTensor(torch.tensor([2.0, 2, 2, 0, 0, 0, 1, 1]).reshape(1, 2, 2, 2))
    assert float(coarsen_label(tie, 2)) == 0
    # Background is not the majority just because it is less than half structure: 3 of 1, 3 of 2, 2 of 0.
    assert float(coarsen_label(MetaTensor(torch.tensor([1.0, 1, 1, 2, 2, 2, 0, 0]).reshape(1, 2, 2, 2)), 2)) == 1


@pytest.mark.parametrize(
    "function, kwargs, match",
    [
        (coarsen, dict(factors=2, mode="majority"), "mode of images"),
        (coarsen, dict(factors=2, align="end"), "align must be one of .'centre', 'start'., got 'end'"),
        (coarsen_label, dict(factors=2, mode="mean"), "mode of labels"),
        (coarsen, dict(factors=4, divisor=2), "divisible by 4×4×4 to be coarsened so far, got 6×8×8"),
        (coarsen_label, dict(factors=4, divisor=2), "divisible by 4×4×4 to be coarsened so far, got 6×8×8"),
    ],
)
def test_ill_arguments_are_refused(function, kwargs, match):
    with pytest.raises(ValueError, match=match):
        function(MetaTensor(torch.zeros(1, 6, 8, 8)), **kwargs)


def test_incomplete_blocks_are_filled_up_around_the_scan_or_behind_it():
    """Along one axis 1 to 6 in blocks of 4: one voxel of 9 on either side, or two at the end."""
    image = torch.arange(1.0, 7).reshape(1, 6, 1, 1)
    assert coarsen(image, (4, 1, 1), pad_value=9).flatten().tolist() == [(9 + 1 + 2 + 3) / 4, (4 + 5 + 6 + 9) / 4]
    behind = coarsen(image, (4, 1, 1), pad_value=9, align="start")
    assert behind.flatten().tolist() == [(1 + 2 + 3 + 4) / 4, (5 + 6 + 9 + 9) / 4]
    assert type(behind) is torch.Tensor


def test_each_axis_has_its_own_factor_and_the_affine_follows():
    coarse = coarsen(cube(), (1, 2, 4))
    assert coarse.shape == (1, 32, 16, 8) and coarse.pixdim.tolist() == [1, 2, 4]
    assert centre_mm(coarse) == pytest.approx(CENTRE)


@pytest.mark.parametrize("transform", [SimulateLowResolutiond, MultiResolutionPyramidd])
@pytest.mark.parametrize("kwargs", [dict(image_mode="nearest"), dict(label_mode="mean")])
def test_unknown_modes_are_refused_before_the_first_case(transform, kwargs):
    with pytest.raises(ValueError, match=r"mode of (images|labels) must be one of"):
        transform("image", "label", **kwargs)


def test_coarsend_pads_with_the_minimum_and_background_then_averages():
    image = MetaTensor(torch.full((1, 6, 8, 8), 5.0), affine=AFFINE)
    image[0, 0, 0, 0] = 3.0
    label = MetaTensor(torch.ones(1, 6, 8, 8), affine=AFFINE)
    out = SimulateLowResolutiond("image", "label")({"image": image, "label": label, "level": 1})
    assert out["image"].shape == out["label"].shape == (1, 4, 4, 4)
    # One layer of 3 before and after the six of 5: the first block holds four of 3 and three of 5 and one more of 3.
    assert float(out["image"][0, 0, 0, 0]) == (4 * 3 + 3 + 3 * 5) / 8
    assert float(out["image"][0, 1, 1, 1]) == 5 and float(out["label"][0, 1, 1, 1]) == 1
    assert float(out["label"][0, 0, 0, 0]) == 0  # four to four, to the lower index
    # Voxel 0 of the coarse grid is the centre of padded voxels 0 and 1, which are -1 and 0 of the scan.
    assert out["image"].affine[:3, 3].tolist() == [10 - 0.5, 20 + 0.5, 30 + 0.5]
    assert not out["image"].applied_operations


def test_coarsend_leaves_level_0_as_it_is():
    image = MetaTensor(torch.rand(1, 5, 6, 7))
    assert torch.equal(SimulateLowResolutiond("image")({"image": image, "level": 0})["image"], image)


def test_pyramid_has_every_level_on_one_grid():
    data = {"image": cube((30, 20, 24)), "label": cube((30, 20, 24))}
    out = MultiResolutionPyramidd("image", "label")(data)
    assert set(out) == {f"{key}_{level}" for key in ("image", "label") for level in range(4)}
    for level in range(4):
        image, label = out[f"image_{level}"], out[f"label_{level}"]
        assert image.shape == label.shape == (1, 32 >> level, 24 >> level, 24 >> level)
        torch.testing.assert_close(image.affine, label.affine)
        assert centre_mm(image) == pytest.approx(CENTRE)


def test_each_label_can_have_its_own_rule_and_levels_can_be_chosen():
    data = {"image": cube(), "a": cube(), "b": cube(), "level": 1}
    data["b"][0, 8, 8, 8] = 0  # the first voxel of a block: only the nearest rule sees it
    out = SimulateLowResolutiond("image", ["a", "b"], label_mode=["majority", "nearest"])(data)
    assert (int(out["a"].sum()), int(out["b"].sum())) == (64, 63)
    assert set(MultiResolutionPyramidd("image", "a", levels=[0, 2])({"image": cube(), "a": cube()})) == {
        "image_0", "image_2", "a_0", "a_2"
    }  # fmt: skip
    # The label of level 0 is always there: predictions at 1 mm are compared with it.
    assert set(MultiResolutionPyramidd("image", "a", levels=[2])({"image": cube(), "a": cube()})) == {
        "image_2", "a_0", "a_2"
    }  # fmt: skip


def test_of_several_ways_to_make_images_coarse_one_is_drawn_for_each_case():
    image = MetaTensor(torch.rand(1, 8, 8, 8, generator=torch.Generator().manual_seed(0)))
    data = {"image": image, "a": cube()[:, :8, :8, :8]}
    mean, trilinear = (
        MultiResolutionPyramidd("image", "a", levels=[3], image_mode=m)(data)["image_3"] for m in ("mean", "trilinear")
    )
    assert not torch.equal(mean, trilinear)
    transform = MultiResolutionPyramidd("image", "a", levels=[3], image_mode=["mean", "trilinear"])
    transform.set_random_state(seed=0)
    drawn = [transform(data)["image_3"] for _ in range(20)]
    found = {"mean" if torch.equal(x, mean) else "trilinear" if torch.equal(x, trilinear) else "?" for x in drawn}
    assert found == {"mean", "trilinear"}


def test_thick_slices_change_the_image_along_one_axis_and_keep_its_mean():
    torch.manual_seed(0)
    image = MetaTensor(torch.rand(1, 16, 16, 16), affine=AFFINE)
    transform = RandAnisotropyd("image", prob=1.0, thickness=(4.0, 4.0)).set_random_state(0)
    out = transform({"image": image})["image"]
    variation = [float(out.as_tensor()[0].diff(dim=axis).abs().mean()) for axis in range(3)]
    assert sorted(variation)[0] < 0.5 * sorted(variation)[1]  # smooth along one axis only
    assert float(out.mean()) == pytest.approx(float(image.mean()), abs=1e-3)
    assert torch.equal(out.affine, image.affine) and out.shape == image.shape
    assert torch.equal(RandAnisotropyd("image", prob=0.0)({"image": image})["image"], image)


def test_each_level_of_a_pyramid_is_padded_at_its_end_to_what_the_network_takes():
    levels = ResolutionLevels(num_levels=3, num_stages=4, spacing=(1.0, 1.0, 1.0))  # multiples of 8, 4 and 2
    sizes = {"image_1": (5, 8, 9), "label_1": (5, 8, 9), "image_2": (3, 4, 5), "label_0": (10, 16, 17)}
    padded = PadPyramidd(levels)({key: MetaTensor(torch.ones(1, *size)) for key, size in sizes.items()})
    assert {key: tuple(value.shape[1:]) for key, value in padded.items()} == {
        "image_1": (8, 8, 12), "label_1": (8, 8, 12), "image_2": (4, 4, 6), "label_0": (16, 16, 24)
    }  # fmt: skip
    assert padded["image_1"][:, :5, :8, :9].min() == 1 and padded["image_1"].sum() == 5 * 8 * 9
