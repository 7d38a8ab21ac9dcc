"""Labelled scans of any voxel size at the levels at which they can be scored."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from nibabel.affines import voxel_sizes

from ..levels import ResolutionLevels
from ..utils.errors import one_line
from ..utils.geometry import format_size
from .datalists import expand_levels
from .readers import HeaderPreservingNibabelReader

__all__ = ["expand_scored_levels"]

logger = logging.getLogger(__name__)
LISTED = 5  # cases that the log names


def label_spacing(item: dict[str, Any], spatial_dims: int) -> list[float] | None:
    """Reads the voxel size (mm) of a case's label from its header; None if it cannot be read."""
    reader = HeaderPreservingNibabelReader(warn=False)
    try:
        image = reader.open(item["label"])
        reader.check(image, str(item["label"]))
    except Exception:  # whoever loads the case reports it, and the other cases go on
        return None
    return voxel_sizes(reader._get_affine(image)).tolist()[:spatial_dims]


def scored_levels(spacing: Sequence[float], levels: Sequence[int], resolution_levels: ResolutionLevels) -> list[int]:
    """Returns those of ``levels`` at which a labelled scan can be scored.

    These are the level that it enters and, if its voxels are those of that level, all coarser ones, for which it is
    coarsened by whole blocks.
    """
    own = resolution_levels.level_of_spacing(spacing)
    is_level = resolution_levels.is_level_spacing(spacing, own)
    return [level for level in levels if level == own or (is_level and level > own)]


def expand_scored_levels(
    items: Sequence[dict], levels: Sequence[int], resolution_levels: ResolutionLevels
) -> list[dict[str, Any]]:
    """Repeats every labelled case once for each level at which it can be scored, with the level under ``level``.

    One line of the log says which cases are not scored at all levels and on the level 0 grid.

    Args:
        items: dictionaries with ``image`` and ``label``. An item without ``case`` gets the name of its image's file.
        levels: levels that are asked for.
        resolution_levels: the resolution levels of the task.

    Raises:
        ValueError: If no case can be scored at one of ``levels``.
    """
    expanded: list[dict[str, Any]] = []
    partly: list[str] = []
    left_out: list[str] = []
    for item in items:
        spacing = label_spacing(item, resolution_levels.spatial_dims)
        possible = list(levels) if spacing is None else scored_levels(spacing, levels, resolution_levels)
        expanded += expand_levels([item], possible)
        (case,) = (one_line(one["case"]) for one in expand_levels([item], [0]))
        if not possible:
            left_out.append(case)
        if spacing is not None and not resolution_levels.is_level_spacing(spacing, 0):
            partly.append(f"{case} ({format_size([round(s, 2) for s in spacing])})")
    if partly:
        names = ", ".join(partly[:LISTED]) + (", …" if len(partly) > LISTED else "")
        logger.info(
            f"{len(partly)} of {len(items)} labelled scans are not of {format_size(resolution_levels.level_spacing(0))}"
            " mm: scored on their own grid at the levels that fit it, on that of level 0 only where the label is as "
            f"fine: {names}"
        )
    if left_out and expanded:
        logger.warning(
            f"{len(left_out)} of {len(items)} labelled scans are not scored, none of val_levels {list(levels)} fits: "
            f"{', '.join(left_out)}"
        )
    if items and not expanded:
        raise ValueError(f"val_levels must have a level at which a labelled scan can be scored, got {list(levels)}.")
    return expanded
