"""Colours of labels, the same in the report's contours and in the tables for viewers."""

from __future__ import annotations

__all__ = ["COLOURS", "label_colour", "label_rgb"]

# Colours of Okabe and Ito, which colour-blind readers can tell apart, without black; label 1 has the first.
COLOURS = ("#e69f00", "#56b4e9", "#f0e442", "#009e73", "#cc79a7", "#d55e00", "#0072b2")


def label_colour(label: int) -> str:
    """Returns the colour of a label above background, ``"#rrggbb"``. After the last colour the first follows again."""
    return COLOURS[(label - 1) % len(COLOURS)]


def label_rgb(label: int) -> tuple[int, int, int]:
    """Returns red, green and blue of a label above background, 0 to 255."""
    colour = label_colour(label)
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
