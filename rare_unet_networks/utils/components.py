"""Connected parts of a mask, in PyTorch: MONAI's ``KeepLargestConnectedComponent`` needs scikit-image."""

from __future__ import annotations

import torch

from .labels import is_one_of

__all__ = ["component_sizes", "largest_component"]


def _spread(numbers: torch.Tensor) -> torch.Tensor:
    """The largest number among each voxel and its neighbours: along one axis after the other, which is the same."""
    for axis in range(numbers.ndim):
        n = numbers.shape[axis] - 1
        spread = numbers.clone()
        for to, source in ((0, 1), (1, 0)):
            here = spread.narrow(axis, to, n)
            torch.maximum(here, numbers.narrow(axis, source, n), out=here)
        numbers = spread
    return numbers


def component_sizes(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers the connected parts of a mask; voxels that share a face, an edge or a corner are connected.

    Every voxel takes the largest number in its neighbourhood, until nothing changes. A number is that of a voxel, so
    it is passed on to the voxel whose number was replaced, and each voxel follows the voxel whose number it has. This
    takes few steps also along a thin structure.

    Args:
        mask: shape (*spatial_size), 2-D or 3-D, boolean.

    Returns:
        the number of each voxel's part, 0 outside of the mask; and the size of each part by its number, in voxels.
    """
    count = mask.numel()
    inside = mask.flatten().nonzero().squeeze(dim=1)
    numbers = torch.zeros(count, dtype=torch.int64, device=mask.device)
    numbers[inside] = inside + 1
    while True:
        before, largest = numbers[inside], _spread(numbers.view(mask.shape)).flatten()[inside]
        if torch.equal(before, largest):
            break
        numbers.scatter_reduce_(0, before - 1, largest, "amax")
        numbers[inside] = numbers[largest - 1]
    sizes = torch.bincount(numbers, minlength=count + 1)
    sizes[0] = 0
    return numbers.view(mask.shape), sizes


def largest_component(mask: torch.Tensor, seeds: torch.Tensor | None = None) -> tuple[torch.Tensor, int]:
    """Finds the largest connected part of a mask, of equal ones the first in memory.

    Args:
        mask: shape (*spatial_size), 2-D or 3-D, boolean.
        seeds: mask of the same shape; every part that has a voxel of it is found too.

    Returns:
        its mask, and the number of other parts.
    """
    if not bool(mask.any()):
        return mask.clone(), 0
    inside = mask.nonzero()
    box = tuple(slice(int(a), int(b) + 1) for a, b in zip(inside.amin(dim=0), inside.amax(dim=0)))
    numbers, sizes = component_sizes(mask[box])
    found = {int(sizes.argmax())}
    if seeds is not None:
        found |= set(numbers[seeds[box]].tolist()) - {0}
    largest = torch.zeros_like(mask)
    largest[box] = is_one_of(numbers, found)
    return largest, int((sizes > 0).sum()) - len(found)
