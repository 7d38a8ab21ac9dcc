"""Switches of the command line."""

from __future__ import annotations

__all__ = ["is_on"]


def is_on(value: bool | int | str) -> bool:
    """Reads a switch: ``--overwrite false`` arrives as the text "false", which Python counts as true.

    Args:
        value: True or False, 1 or 0, or their names in any letter case.

    Raises:
        ValueError: if the value is neither.
    """
    text = str(value).lower()
    if text not in ("true", "false", "1", "0"):
        raise ValueError(f"expected true or false, got {value!r}.")
    return text in ("true", "1")
