"""Scales of the levels, and the sizes that they can process."""

from __future__ import annotations

__all__ = ["OUTPUTS", "check_divisible", "check_level", "format_scale", "level_divisor", "level_scale"]

# Grids a network or an inferer predicts on: that of its input, that of level 0, or both of them.
OUTPUTS = ("scan", "fine", "both")


def level_scale(level: int) -> int:
    """Ratio of a level's voxel size to that of level 0, the same for every axis."""
    return int(2**level)


# RAREUNet calls the next three functions, so TorchScript compiles them: they may use only what TorchScript supports.
def check_level(level: int, num_levels: int) -> None:
    """Checks that a level exists.

    Raises:
        ValueError: if it does not.
    """
    if level < 0 or level >= num_levels:
        raise ValueError(f"level must be 0 to {num_levels - 1}, got {level}.")


def level_divisor(level: int, num_levels: int, num_stages: int) -> int:
    """Number that every axis of a level's grid must be divisible by, so that each deeper stage halves it exactly.

    Raises:
        ValueError: if the level does not exist.
    """
    check_level(level, num_levels)
    return int(2 ** (num_stages - 1 - level))


def check_divisible(spatial_size: list[int], level: int, divisor: int) -> None:
    """Checks that every axis of a level's grid is divisible by the level's divisor.

    Raises:
        ValueError: if an axis is not.
    """
    for n in spatial_size:
        if n % divisor != 0:
            raise ValueError(f"spatial_size at level {level} must be divisible by {divisor}, got {spatial_size}.")


def format_scale(level: int) -> str:
    """Formats the scale of a level for names of files and folders: ``"1"``, ``"0.5"``, ``"0.25"``, …"""
    return f"{1 / level_scale(level):g}"
