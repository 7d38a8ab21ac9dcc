import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from rare_unet_networks.data.acquisitions import Acquisition
from rare_unet_networks.transforms.acquisition import (
    RandSimulateAcquisitiond,
    SimulateAcquisitiond,
    simulate_acquisition,
)
from rare_unet_networks.transforms.low_resolution import SimulateLowResolutiond
from rare_unet_networks.utils.coarsening import coarsen_label
from rare_unet_networks.utils.geometry import spacing_of

from .test_transforms import AFFINE, CENTRE, centre_mm, cube

# From left to posterior and down, tilted by 30 degrees about the first axis, voxels of 1×0.5×2 mm.
C, S = math.cos(math.pi / 6), math.sin(math.pi / 6)
TILTED = torch.tensor([[-1, 0, 0, 40], [0, -C, -S, 7], [0, S, -C, -5], [0, 0, 0, 1]], dtype=torch.float64)
TILTED = TILTED @ torch.diag(torch.tensor([1, 0.5, 2, 1], dtype=torch.float64))


def line(*values):
    """A scan whose third axis has these values, 1 mm apart."""
    return MetaTensor(torch.tensor(values, dtype=torch.float32).reshape(1, 1, 1, -1), affine=torch.eye(4))


def along(spacing, profile, **options):
    """An acquisition of a line: only its third axis changes."""
    options = {k: (1, 1, v) if k == "thickness" else (0, 0, v) for k, v in options.items()}
    return Acquisition((1, 1, spacing), profile, **options)


SQUARES = (0, 1, 4, 9, 16, 25, 36, 49)
BY_HAND = {
    "block means": (SQUARES, along(2, "box"), [0.5, 6.5, 20.5, 42.5]),
    # Voxel 0 covers all of the first and half of the second: (1 + 2 / 2) / 1.5.
    "a box that cuts voxels": ((1, 2, 4), along(1.5, "box"), [4 / 3, 10 / 3]),
    # Centres 1.5 and 5.5; 2 mm thick slices cover voxels 1 and 2, and 5 and 6.
    "a gap between slices": (SQUARES, along(4, "box", thickness=2), [2.5, 30.5]),
    # Half a slice further: centres 3.5 and 7.5, the second covers 6, 7 and twice the border beyond.
    "an offset": (SQUARES, along(4, "box", offset=0.5), [(4 + 9 + 16 + 25) / 4, (36 + 3 * 49) / 4]),
    # A profile as narrow as the scan's own voxels is linear between them.
    "a shifted grid, box": (SQUARES, along(1, "box", offset=0.25), [0.25, 1.75, 5.25, 10.75, 18.25, 27.75, 39.25, 49]),
    "a shifted grid": (SQUARES, along(1, "gaussian", offset=0.25), [0.25, 1.75, 5.25, 10.75, 18.25, 27.75, 39.25, 49]),
    "finer than the scan": ((0, 4), along(0.5, "gaussian"), [0, 1, 3, 4]),
    # A standard deviation of one voxel: T(k) = exp(-1) I_k(1), 0.4658, 0.2079, 0.0499 and 0.0082.
    "a Gaussian": (
        (0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0),
        along(1, "gaussian", thickness=math.sqrt(1 + 8 * math.log(2))),
        [0, 0.0010, 0.0082, 0.0499, 0.2079, 0.4658, 0.2079, 0.0499, 0.0082, 0.0010, 0],
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_a_line_by_hand(name):
    values, acquisition, expected = BY_HAND[name]
    assert simulate_acquisition(line(*values), acquisition).flatten().tolist() == pytest.approx(expected, abs=2e-4)


# Thickness, profile, variance in voxels: of a Gaussian of FWHM √(s² - 1), and of a box's shares by hand: 1/6 of either
# neighbour; a third of three voxels; a fifth of five.
WIDTHS = [
    (1.5, "gaussian", 1.25 / (8 * math.log(2))),
    (3.0, "gaussian", 8 / (8 * math.log(2))),
    (5.0, "gaussian", 24 / (8 * math.log(2))),
    (1.5, "box", 1 / 3),
    (3.0, "box", 2 / 3),
    (5.0, "box", 2),
]


@pytest.mark.parametrize("thickness, profile, variance", WIDTHS)
def test_the_profile_has_its_width(thickness, profile, variance):
    impulse = torch.zeros(61)
    impulse[30] = 1
    found = simulate_acquisition(line(*impulse), along(1, profile, thickness=thickness)).flatten().double()
    assert float(found.sum()) == pytest.approx(1)
    assert float((found * (torch.arange(61) - 30) ** 2).sum()) == pytest.approx(variance, rel=0.02)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_block_means_are_a_case_of_it(factor):
    image = MetaTensor(torch.rand(2, 16, 24, 32, generator=torch.Generator().manual_seed(0)), affine=AFFINE)
    label = MetaTensor(torch.randint(3, (1, 16, 24, 32), generator=torch.Generator().manual_seed(1)), affine=AFFINE)
    level = int(math.log2(factor))
    means = SimulateLowResolutiond("image", "label")({"image": image, "label": label, "level": level})
    data = {"image": image, "label": label, "acquisition": Acquisition((factor,) * 3, "box")}
    found = SimulateAcquisitiond("image", "label")(data)
    for key in ("image", "label"):
        torch.testing.assert_close(found[key].as_tensor(), means[key].as_tensor())
        torch.testing.assert_close(found[key].affine, means[key].affine)


@pytest.mark.parametrize("profile", ["gaussian", "box"])
@pytest.mark.parametrize("offset", [(0, 0, 0), (0.5, -0.3, 0.25)])
@pytest.mark.parametrize(
    "spacing", [(1, 1, 1), (2, 2, 2), (1.4, 1.4, 1.4), (1, 1, 5), (3.3, 1.2, 1.2), (0.7, 0.7, 0.7)]
)
def test_a_known_shape_stays_where_it_is(spacing, offset, profile):
    data = {"image": cube(), "label": cube(), "acquisition": dict(spacing=spacing, profile=profile, offset=offset)}
    found = SimulateAcquisitiond("image", "label")(data)
    assert spacing_of(found["image"].affine, 3) == pytest.approx(spacing)
    torch.testing.assert_close(found["image"].affine, found["label"].affine)
    # Voxels that a sharp border cuts move the centre a little; an error of half a voxel would be more than that.
    assert centre_mm(found["image"]) == pytest.approx(CENTRE, abs=max(0.2, 0.1 * max(spacing)))
    assert centre_mm(found["label"]) == pytest.approx(CENTRE, abs=0.5 * max(spacing))
    volume = float(found["image"].sum()) * math.prod(spacing)
    assert volume == pytest.approx(8**3, rel=0.08)


def test_a_tilted_grid_of_unequal_voxels_keeps_its_axes():
    image = MetaTensor(torch.zeros(1, 24, 40, 12), affine=TILTED)
    image[:, 8:16, 12:28, 4:8] = 1
    centre = (TILTED @ torch.tensor([11.5, 19.5, 5.5, 1], dtype=torch.float64))[:3].tolist()
    found = simulate_acquisition(image, Acquisition((2, 2, 2)))
    assert found.shape == (1, 12, 10, 12)
    assert centre_mm(found) == pytest.approx(centre, abs=0.01)
    directions = found.affine[:3, :3] / 2
    torch.testing.assert_close(directions, TILTED[:3, :3] / torch.tensor([1, 0.5, 2], dtype=torch.float64))
    # The third axis, of 2 mm already, is left alone: the image is uniform along it but for the shape's own borders.
    assert torch.equal(found[0].amax(dim=(0, 1)) > 0, image[0].amax(dim=(0, 1)) > 0)


def test_a_label_is_the_most_frequent_class_and_a_tie_goes_to_the_lowest():
    label = line(1, 1, 2, 2, 2, 1, 0, 2, 2)
    found = simulate_acquisition(label, along(3, "box"), is_label=True)
    assert found.flatten().tolist() == [1, 2, 2] and found.dtype == label.dtype
    assert simulate_acquisition(line(2, 1, 0, 2, 2, 1), along(3, "box"), is_label=True).flatten().tolist() == [0, 2]


def test_channels_are_independent_and_whole_brains_are_one_grid():
    brain = MetaTensor(torch.rand(4, 60, 50, 40, generator=torch.Generator().manual_seed(0)), affine=AFFINE)
    acquisition = Acquisition((1, 5, 1))
    found = simulate_acquisition(brain, acquisition)
    assert found.shape == (4, 60, 10, 40)
    for channel, alone in zip(found, brain):
        torch.testing.assert_close(channel, simulate_acquisition(alone[None], acquisition)[0])


def test_noise_grows_as_voxels_shrink_and_spares_a_background_set_to_one_value():
    image = torch.zeros(1, 32, 32, 64)
    image[..., 32:] = 100  # the range of intensities is 100

    def sd(spacing):
        scan = MetaTensor(image, affine=torch.eye(4))
        clean = simulate_acquisition(scan, Acquisition(spacing))
        difference = (simulate_acquisition(scan, Acquisition(spacing, noise=0.05)) - clean).as_tensor()
        assert not difference[clean == 0].any()
        return float(difference[clean > 0].std())

    assert sd((1, 1, 1)) == pytest.approx(5, rel=0.03)
    assert sd((1, 1, 0.5)) == pytest.approx(10, rel=0.03)
    assert sd((2, 2, 2)) == pytest.approx(0.625, rel=0.06)


def test_what_is_simulated_is_a_scan_of_its_own_and_the_given_one_stays():
    image = cube()
    before = image.clone()
    found = simulate_acquisition(image, Acquisition((1, 1, 1), noise=0.1))
    assert torch.equal(image, before) and not torch.equal(found, before)
    assert found.applied_operations == []


def test_without_an_acquisition_nothing_is_changed():
    data = {"image": cube()}
    assert SimulateAcquisitiond("image")(data)["image"] is data["image"]


def test_a_wrong_number_of_axes_is_refused():
    with pytest.raises(ValueError, match="spacing must have 3 axes, got 2×2"):
        simulate_acquisition(cube(), Acquisition((2, 2)))


def test_random_acquisitions_are_within_their_ranges_and_repeat_with_a_seed():
    def drawn(seed, **options):
        transform = RandSimulateAcquisitiond("image", "label", **options).set_random_state(seed)
        return [transform({"image": cube(), "label": cube()}) for _ in range(40)]

    found, again = drawn(0), drawn(0)
    assert [d["acquisition"] for d in found] == [d["acquisition"] for d in again]
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(found, again))
    shapes = {"isotropic": 0, "anisotropic": 0}
    thick_axes = set()
    for d in found:
        a = d["acquisition"]
        torch.testing.assert_close(d["image"].affine, d["label"].affine)
        assert spacing_of(d["image"].affine, 3) == pytest.approx(a.spacing)
        low, high = min(a.spacing), max(a.spacing)
        shapes["isotropic" if low == high else "anisotropic"] += 1
        assert low >= 0.9 and high <= (9 if low == high else 11) and (low == high or low <= 2.2)
        assert sorted(a.spacing)[0] == sorted(a.spacing)[1]
        assert all(0.7 * s - 1e-9 <= t <= s for s, t in zip(a.spacing, a.thickness))
        assert all(-0.5 <= o <= 0.5 for o in a.offset) and 0 <= a.noise <= 0.03
        thick_axes |= {int(np.argmax(a.spacing))} if high > low else set()
    assert min(shapes.values()) >= 10 and thick_axes == {0, 1, 2}
    assert {d["acquisition"].profile for d in found} == {"gaussian", "box"}
    assert any(d["acquisition"].thickness != d["acquisition"].spacing for d in found)
    assert all(len(set(d["acquisition"].spacing)) == 1 for d in drawn(1, anisotropic_prob=0))


def test_an_acquisition_that_is_given_is_not_drawn():
    acquisition = Acquisition((2, 2, 2), "box")
    data = {"image": cube(), "label": cube(), "acquisition": acquisition}
    found = RandSimulateAcquisitiond("image", "label").set_random_state(0)(data)
    assert found["acquisition"] is acquisition
    assert torch.equal(found["label"].as_tensor(), coarsen_label(cube(), 2).as_tensor())


def test_a_voxels_class_is_that_of_most_of_its_volume():
    """A Gaussian of 4 mm reaches far beyond the voxel; 3 of its 4 mm decide."""
    label = line(0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0)
    assert simulate_acquisition(label, along(4, "gaussian"), is_label=True).flatten().tolist() == [0, 1, 0]
