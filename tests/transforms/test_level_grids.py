import pytest
import torch
from monai.data import MetaTensor

from rare_unet_networks import ResolutionLevels, ResolutionRoutingInferer
from rare_unet_networks.data.acquisitions import Acquisition
from rare_unet_networks.transforms.acquisition import simulate_acquisition
from rare_unet_networks.transforms.level_grids import ResampleToLeveld
from rare_unet_networks.utils.coarsening import coarsen_label

from .test_transforms import cube

LEVELS = ResolutionLevels(4, (32, 64, 32), (1.0, 1.0, 1.0), rule="volume")


def acquired(spacing, **options):
    scan = simulate_acquisition(cube(), Acquisition(spacing, **options))
    return {"image": scan, "label": cube()}


@pytest.mark.parametrize("spacing", [(1, 1, 1), (1.3, 1.3, 1.3), (3, 3, 3), (1, 1, 5), (2, 9, 2), (8, 8, 8)])
def test_the_scan_is_what_the_inferer_gives_the_network(spacing):
    data = acquired(spacing, offset=(0.2, 0.1, -0.4))
    level = LEVELS.level_of_spacing(spacing)
    found = ResampleToLeveld(LEVELS)({**data, "level": level})
    given = []

    def network(x, level):
        given.append((level, x))
        return x.repeat(1, 2, 1, 1, 1)

    ResolutionRoutingInferer(LEVELS)(data["image"][None], network)
    assert given[0][0] == level
    assert torch.equal(found[f"image_{level}"], given[0][1][0])
    assert tuple(found["label_0"].shape[1:]) == tuple(n * 2**level for n in found[f"image_{level}"].shape[1:])


def test_the_fine_label_is_the_given_one_where_the_grids_are_one():
    # 32 voxels of 1 mm are 16 of 2 mm; 16 is what level 1 can process but for two voxels at the deepest stage.
    found = ResampleToLeveld(LEVELS)({**acquired((2, 2, 2), profile="box"), "level": 1})
    assert torch.equal(found["label_0"], cube().as_tensor())
    assert torch.equal(found["label_1"], coarsen_label(cube(), 2).as_tensor())
    assert set(found) == {"image_1", "label_1", "label_0", "level"}


def test_the_fine_label_moves_with_the_grid():
    # Half a voxel of 4 mm to the left, behind and below: the grid starts 2 mm lower, so the shape lies 2 mm higher.
    found = ResampleToLeveld(LEVELS)({**acquired((4, 4, 4), offset=(-0.5, -0.5, -0.5)), "level": 2})
    assert torch.equal(found["label_0"][:, 2:, 2:, 2:], cube().as_tensor()[:, :-2, :-2, :-2])


def test_a_scan_can_enter_a_level_that_the_rule_does_not_choose():
    found = ResampleToLeveld(LEVELS)({**acquired((2, 2, 2), profile="box"), "level": 2})
    assert found["image_2"].shape == (1, 8, 8, 8)
    assert torch.equal(found["label_0"], cube().as_tensor())


def test_a_label_on_a_grid_of_its_own_is_sampled_at_its_place():
    affine = cube().affine.clone()
    affine[:3, 3] += 4
    label = MetaTensor(cube().as_tensor()[:, 4:, 4:, 4:], affine=affine)
    found = ResampleToLeveld(LEVELS)({"image": cube(), "label": label, "level": 0})
    assert torch.equal(found["label_0"], cube().as_tensor())
