import copy
import dataclasses
import math
import pickle

import pytest
import torch
from monai.data import MetaTensor, decollate_batch

from rare_unet_networks.levels import ResolutionLevels
from rare_unet_networks.utils.geometry import symmetric_margins

LEVELS = ResolutionLevels(num_levels=4, spatial_size=(32, 64, 32), spacing=(1.0, 1.0, 1.0))

SPACING_CASES = [
    ((1.0, 1.0, 1.0), 0),
    ((2.0, 2.0, 2.0), 1),
    ((4.0, 4.0, 4.0), 2),
    ((8.0, 8.0, 8.0), 3),
    ((1.5, 1.5, 1.5), 1),  # log2 1.5 = 0.585 is nearer to 1
    ((1.4, 1.4, 1.4), 0),  # log2 1.4 = 0.485 is nearer to 0
    ((math.sqrt(2),) * 3, 0),  # a tie goes to the finer level
    ((float(torch.tensor(2**1.5)),) * 3, 1),  # a tie in float32
    ((1.0, 1.0, 4.0), 0),  # the finest axis decides
    ((8.0, 2.0, 4.0), 1),
    ((0.3, 0.3, 0.3), 0),  # finer than the finest
    ((30.0, 30.0, 30.0), 3),  # coarser than the coarsest
]
VOLUME_CASES = [
    ((1.0, 1.0, 1.0), 0),
    ((2.0, 2.0, 2.0), 1),
    ((1.0, 1.0, 2.8), 0),  # of a cube of 1.41 mm, log2 1.41 = 0.495
    ((1.0, 1.0, 2.9), 1),  # of a cube of 1.43 mm, log2 1.43 = 0.512
    ((5.0, 1.0, 1.0), 1),  # 1.71 mm, whichever axis is thick
    ((1.0, 1.0, 2**1.5), 0),  # √2 mm, a tie, goes to the finer level
    ((2.0, 2.0, 5.0), 1),  # 2.71 mm
    ((30.0, 30.0, 30.0), 3),
]
SWITCH_CASES = [
    ((1.6, 1.6, 1.6), 0),  # log2 1.6 = 0.678
    ((1.7, 1.7, 1.7), 1),  # log2 1.7 = 0.766
    ((3.0, 3.0, 3.0), 1),  # 1.585 is 0.585 of the way from level 1 to 2
    ((6.0, 6.0, 6.0), 2),
    ((7.0, 7.0, 7.0), 3),  # 2.807
    ((2.0**1.75,) * 3, 1),  # at the switch, the finer one
    ((0.3, 0.3, 0.3), 0),
]
SIZE_CASES = [
    ((32, 64, 32), 0),
    ((16, 32, 16), 1),
    ((8, 16, 8), 2),
    ((4, 8, 4), 3),
    ((35, 51, 35), 0),
    ((20, 28, 20), 1),
    ((1, 1, 1), 3),
    ((256, 256, 256), 0),
    ((16, 64, 32), 0),  # mean of 1, 0, 0 halvings is nearer to none
    ((16, 32, 32), 1),  # mean of 1, 1, 0 halvings is nearer to one
]
ILL_SIZES = [((32, 64), "3 axes, got 2"), ((32, 0, 32), "1 voxel or more"), ((32, -1, 32), "1 voxel or more")]
ILL_SPACINGS = [
    ((1.0, 1.0), "3 axes, got 2"),
    ((0.0, 1.0, 1.0), "finite and above 0"),
    ((1.0, -1.0, 1.0), "finite and above 0"),
    ((1.0, float("nan"), 1.0), "finite and above 0"),
    ((1.0, float("inf"), 1.0), "finite and above 0"),
]
PADDED_CASES = [
    ((35, 51, 35), 0, (48, 64, 48)),
    ((32, 64, 32), 0, (32, 64, 32)),
    ((18, 26, 18), 1, (24, 32, 24)),
    ((5, 7, 5), 3, (6, 8, 6)),
    ((1, 1, 1), 3, (4, 2, 2)),  # two voxels are left at the deepest stage
    ((16, 16, 16), 0, (32, 16, 16)),
]
ILL_LEVELS = [
    (dict(num_levels=0, spacing=(1.0,)), "num_levels must be at least 1"),
    (dict(num_levels=4), "got neither"),
    (dict(num_levels=4, spatial_size=(32, 32), spacing=(1.0,)), "equally many axes"),
    (dict(num_levels=4, spacing=(1.0,), num_stages=3), "num_stages must be at least"),
    (dict(num_levels=4, spacing=(1.0,), tolerance=float("nan")), "tolerance must be 0 or more"),
    (dict(num_levels=4, spacing=(1.0,), routing="nearest"), "routing must be one of .*, got 'nearest'"),
    (dict(num_levels=4, spacing=(1.0,), rule="thickest"), "rule must be one of .*, got 'thickest'"),
]


def levels_by(routing):
    return ResolutionLevels(num_levels=4, spatial_size=(32, 64, 32), spacing=(1.0, 1.0, 1.0), routing=routing)


def scan(size=(32, 64, 32), spacing=(1.0, 1.0, 1.0)):
    return MetaTensor(torch.zeros(1, 1, *size), affine=torch.diag(torch.tensor([*spacing, 1.0])))


@pytest.mark.parametrize("spacing, level", SPACING_CASES)
def test_level_of_spacing_is_the_nearest_in_log2(spacing, level):
    assert LEVELS.level_of_spacing(spacing) == level


@pytest.mark.parametrize("spacing, level", SWITCH_CASES)
def test_the_switch_says_where_the_coarser_level_begins(spacing, level):
    levels = ResolutionLevels(num_levels=4, spatial_size=(32, 64, 32), spacing=(1.0, 1.0, 1.0), switch=0.75)
    assert levels.level_of_spacing(spacing) == level


def test_each_pair_of_levels_can_have_its_own_switch():
    levels = ResolutionLevels(num_levels=4, spacing=(1.0, 1.0, 1.0), switch=(0.75, 0.5, 0.85))
    found = [levels.level_of_spacing((spacing,) * 3) for spacing in (1.6, 1.7, 2.8, 3.0, 7.0, 7.5)]
    assert found == [0, 1, 1, 2, 2, 3]  # log2: 0.678, 0.766, 1.485, 1.585, 2.807, 2.907


def test_as_many_switches_as_pairs_of_levels_are_needed():
    with pytest.raises(ValueError, match=r"one for each of 3 pairs, got \(0\.5, 0\.5\)"):
        ResolutionLevels(num_levels=4, spacing=(1.0, 1.0, 1.0), switch=(0.5, 0.5))


def test_the_switch_does_not_move_the_rule_by_size():
    sizes = [(32, 64, 32), (20, 40, 20), (16, 32, 16)]  # log2 32/20 = 0.678
    levels = ResolutionLevels(num_levels=4, spatial_size=(32, 64, 32), switch=0.9)
    assert [levels.level_of_size(size) for size in sizes] == [0, 1, 1]


@pytest.mark.parametrize("switch", [-0.1, 1.0, float("nan")])
def test_a_switch_outside_its_range_is_refused(switch):
    with pytest.raises(ValueError, match="switch must be 0 or more and below 1"):
        ResolutionLevels(num_levels=4, spacing=(1.0, 1.0, 1.0), switch=switch)


@pytest.mark.parametrize("spacing, level", VOLUME_CASES)
def test_by_volume_the_mean_of_the_axes_in_log2_decides(spacing, level):
    levels = ResolutionLevels(num_levels=4, spacing=(1.0, 1.0, 1.0), rule="volume")
    assert levels.level_of_spacing(spacing) == level
    assert levels.level_of_spacing(spacing[::-1]) == level


@pytest.mark.parametrize("size, level", SIZE_CASES)
def test_level_of_size_is_the_nearest_in_log2(size, level):
    assert LEVELS.level_of_size(size) == level


@pytest.mark.parametrize("size, match", ILL_SIZES)
def test_absurd_sizes_are_refused(size, match):
    with pytest.raises(ValueError, match=match):
        LEVELS.level_of_size(size)


@pytest.mark.parametrize("spacing, match", ILL_SPACINGS)
def test_absurd_spacings_are_refused(spacing, match):
    with pytest.raises(ValueError, match=match):
        LEVELS.level_of_spacing(spacing)


@pytest.mark.parametrize("size, level, expected", PADDED_CASES)
def test_padded_size_is_the_smallest_a_level_can_process(size, level, expected):
    assert LEVELS.padded_size(size, level) == expected


@pytest.mark.parametrize("kwargs, match", ILL_LEVELS)
def test_ill_arguments_are_refused(kwargs, match):
    with pytest.raises(ValueError, match=match):
        ResolutionLevels(**kwargs)


def test_a_level_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="level must be 0 to 3, got 4"):
        LEVELS.padded_size((8, 8, 8), 4)


def test_anisotropic_reference_compares_each_axis_with_its_own():
    levels = ResolutionLevels(num_levels=3, spacing=(1.0, 1.0, 3.0))
    assert levels.level_of_spacing((2.0, 2.0, 6.0)) == 1
    assert levels.level_spacing(2) == (4.0, 4.0, 12.0)


def test_only_axes_off_by_more_than_the_tolerance_are_resampled():
    assert LEVELS.resampled_size((40, 50, 12), (1.0, 1.09, 4.0), 0) == (40, 50, 48)
    assert LEVELS.resampled_size((40, 50, 12), (1.0, 1.11, 4.0), 0) == (40, 56, 48)  # 50 · 1.11 = 55.5
    assert LEVELS.resampled_size((40, 40, 40), (1.5, 1.5, 1.5), 1) == (30, 30, 30)
    # 18 · 3 / 4 = 13.5: an affine is stored in 32 bits, and its last digit must not decide between 13 and 14.
    for spacing in (3.0000001, 3.0, 2.9999999):
        assert LEVELS.resampled_size((18, 18, 18), (spacing, 4.0, 4.0), 2)[0] == 14


def test_meta_tensor_is_placed_by_spacing_and_plain_tensor_by_size():
    image = scan((32, 64, 32), (2.0, 2.0, 2.0))
    assert LEVELS.route(image).level == 1
    assert levels_by("size").route(image).level == 0
    assert LEVELS.route(image.as_tensor()).level == 0


def test_size_routing_needs_no_spacing_and_spacing_routing_no_size():
    assert ResolutionLevels(num_levels=2, spatial_size=(8, 8)).route(torch.zeros(1, 1, 4, 4)).level == 1
    assert ResolutionLevels(num_levels=2, spacing=(1.0, 1.0)).route(MetaTensor(torch.zeros(1, 1, 4, 4))).level == 0


def test_route_tells_what_happens_in_words():
    text = str(LEVELS.route(scan((40, 50, 12), (1.0, 1.0, 4.0))))
    assert "level 0 (scale 1)" in text and "spacing 1×1×4 mm enters at 1×1×1 mm" in text
    assert "resampled from 40×50×12 to 40×50×48" in text and "padded from 40×50×48 to 48×64×48" in text


def test_oblique_scan_is_placed_by_its_voxel_edges():
    c, s = math.cos(0.3), math.sin(0.3)
    affine = torch.tensor([[2 * c, -2 * s, 0, 5], [2 * s, 2 * c, 0, -3], [0, 0, 2, 7], [0, 0, 0, 1.0]])
    route = LEVELS.route(MetaTensor(torch.zeros(1, 1, 16, 32, 16), affine=affine))
    assert route.level == 1 and route.resampled_size == (16, 32, 16)


def batch(*spacings):
    affine = torch.stack([torch.diag(torch.tensor([s, s, s, 1.0])) for s in spacings])
    image = MetaTensor(torch.zeros(len(spacings), 1, 16, 32, 16), affine=affine)
    image.is_batch = True
    return image


def test_a_batch_of_two_levels_is_refused():
    assert LEVELS.route(batch(2.0, 2.05)).level == 1
    with pytest.raises(ValueError, match=r"one level, got levels \[0, 1\]"):
        LEVELS.route(batch(1.0, 2.0))
    with pytest.raises(ValueError, match="same resampling"):
        LEVELS.route(batch(2.0, 2.5))


@pytest.mark.parametrize(
    "image, routing, match",
    [
        (torch.zeros(1, 1, 8, 8), "auto", "3 spatial axes"),
        (torch.zeros(1, 1, 8, 8, 0), "auto", "1 voxel or more"),
        (torch.zeros(1, 1, 8, 8, 8), "spacing", "needs a MetaTensor"),
        (scan(spacing=(1.0, 0.0, 1.0)), "auto", "finite and above 0"),
        (scan(spacing=(1.0, float("nan"), 1.0)), "auto", "finite and above 0"),
    ],
)
def test_inputs_that_fit_no_level_are_refused(image, routing, match):
    with pytest.raises(ValueError, match=match):
        levels_by(routing).route(image)


def test_symmetric_margins_put_the_odd_voxel_after():
    assert symmetric_margins((35, 4), (40, 4)) == [(2, 3), (0, 0)]


@pytest.mark.parametrize(
    "spacing, far",
    [((8.8, 8.8, 8.8), False), ((1.0, 8.9, 1.0), True), ((0.1, 1.0, 4.0), False), ((9.6,) * 3, True), (None, False)],
)
def test_a_scan_is_too_coarse_beyond_the_tolerance_of_the_coarsest_level(spacing, far):
    warning = LEVELS.distance_warning(spacing)
    assert ("is coarser than the coarsest level's, 8×8×8 mm: do not trust the prediction" in warning) == far
    wider = ResolutionLevels(num_levels=4, spacing=(1.0, 1.0, 1.0), tolerance=0.3)
    one = ResolutionLevels(num_levels=1, spacing=(1.0, 1.0, 1.0))
    assert "coarser than the coarsest" not in wider.distance_warning(spacing) and one.distance_warning(spacing) == ""


THICK = {(1.0, 1.0, 8.0): "8", (1.0, 7.3, 1.0): "7.3", (0.5, 0.5, 8.0): "8", (1.1, 1.1, 8.0): "7.27"}
THIN = [(1.0, 1.0, 7.0), (2.0, 2.0, 8.0), (0.1, 1.0, 4.0), (8.0, 8.0, 8.0)]


@pytest.mark.parametrize("spacing, thickness", [*THICK.items(), *((spacing, None) for spacing in THIN)])
def test_slices_so_thick_that_the_axes_lie_at_the_first_and_the_last_level_are_warned_of(spacing, thickness):
    warning = LEVELS.distance_warning(spacing)
    expected = f"mm: its slices are {thickness} times as thick as its voxels are wide: do not trust the prediction"
    assert warning.endswith(expected) if thickness else warning == ""
    assert ResolutionLevels(num_levels=1, spacing=(1.0, 1.0, 1.0)).distance_warning(spacing) == ""


def test_a_route_is_the_number_of_its_level_and_survives_copies_and_decollation():
    route = LEVELS.route(batch(2.0, 2.05))
    assert int(route) == route.level == 1
    for same in (copy.deepcopy(route), pickle.loads(pickle.dumps(route)), dataclasses.replace(route)):
        assert same == route and same.reason == route.reason and type(same) is type(route)
    first, second = decollate_batch({"x": torch.zeros(2, 1), "route": route})
    assert first["route"] == route
    assert type(second["route"]) is type(route) and second["route"].padded_size == route.padded_size


# Voxel size of a label, whether it is as fine as level 0 (to 10 %), and the finest level that it trains.
LABEL_CASES = [
    ((1.0, 1.0, 1.0), True, 0),
    ((1.1, 0.9, 1.0), True, 0),
    ((0.5, 0.5, 0.5), True, 0),  # finer: averaged
    ((1.2, 1.0, 1.0), False, 1),  # a scan that enters at level 0, with a label too coarse for it
    ((2.0, 2.0, 2.0), False, 1),
    ((1.0, 1.0, 5.0), False, 1),  # of a cube of 1.71 mm
    ((4.0, 4.0, 4.0), False, 2),
    ((30.0, 30.0, 30.0), False, 3),
]


@pytest.mark.parametrize("spacing, is_fine, level", LABEL_CASES)
def test_a_label_trains_level_0_only_if_it_is_as_fine(spacing, is_fine, level):
    levels = ResolutionLevels(4, (32, 64, 32), (1.0, 1.0, 1.0), rule="volume")
    assert (levels.is_fine(spacing), levels.level_of_label(spacing)) == (is_fine, level)
    assert levels.is_level_spacing(spacing, 0) == (is_fine and min(spacing) >= 0.9)


def test_a_thick_label_trains_no_level_0_where_the_finest_axis_decides():
    assert LEVELS.level_of_spacing((1.0, 1.0, 5.0)) == 0
    assert LEVELS.level_of_label((1.0, 1.0, 5.0)) == 1


def test_a_network_of_one_level_takes_fine_labels_only():
    levels = ResolutionLevels(1, (32, 64, 32), (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match=r"voxels of at most 1×1×1 mm \(to 10%\) for a network with one level, got 2"):
        levels.level_of_label((2.0, 2.0, 2.0))
