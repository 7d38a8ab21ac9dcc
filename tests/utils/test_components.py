"""Connected parts of masks."""

import pytest
import torch

from rare_unet_networks.utils.components import component_sizes, largest_component

# A part of 4 voxels, one of 3 that is connected by corners, and a single voxel.
ROWS = [
    "##......",
    "##...#..",
    "......#.",
    "#......#",
]
LARGEST = [
    "##......",
    "##......",
    "........",
    "........",
]


def mask(rows):
    return torch.tensor([[character == "#" for character in row] for row in rows])


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_largest_part_is_kept_and_the_others_are_counted(ndim):
    given, expected = mask(ROWS), mask(LARGEST)
    if ndim == 3:
        given, expected = (torch.stack([m, m & False, m & False]) for m in (given, expected))
    kept, others = largest_component(given)
    assert torch.equal(kept, expected) and others == 2


def test_sizes_are_those_of_the_parts():
    numbers, sizes = component_sizes(mask(ROWS))
    assert sorted(sizes[sizes > 0].tolist()) == [1, 3, 4]
    assert sizes[numbers[mask(ROWS)]].tolist() == [4, 4, 4, 4, 3, 3, 1, 3]


def test_nothing_has_no_part_and_a_whole_one_no_other():
    kept, others = largest_component(torch.zeros(3, 4, 5, dtype=torch.bool))
    assert not kept.any() and others == 0
    kept, others = largest_component(torch.ones(3, 4, 5, dtype=torch.bool))
    assert kept.all() and others == 0


def test_of_equal_parts_one_is_kept_always_the_same():
    given = mask(["#.#"])
    kept, others = largest_component(given)
    assert kept.sum() == 1 and others == 1 and torch.equal(largest_component(given)[0], kept)


def test_a_thin_winding_part_is_one():
    """A snake through a plane: 8 rows of 17 voxels, joined at alternating ends."""
    given = torch.zeros(15, 17, dtype=torch.bool)
    given[::2] = True
    for row in range(1, 15, 2):
        given[row, 0 if row % 4 == 3 else -1] = True
    kept, others = largest_component(given)
    assert torch.equal(kept, given) and others == 0


def test_parts_are_those_of_scipy():
    ndimage = pytest.importorskip("scipy.ndimage")
    generator = torch.Generator().manual_seed(0)
    for density in (0.05, 0.12, 0.3):
        given = torch.rand(14, 15, 16, generator=generator) < density
        labelled, count = ndimage.label(given.numpy(), structure=[[[1] * 3] * 3] * 3)
        sizes = sorted((labelled == i).sum() for i in range(1, count + 1))
        assert sorted(component_sizes(given)[1].tolist())[-count:] == sizes
        kept, others = largest_component(given)
        assert int(kept.sum()) == sizes[-1] and others == count - 1
