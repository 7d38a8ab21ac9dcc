"""What a whole head's record has beside that of a crop: volumes of each side and of both, and the names of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..utils.files import write_text

__all__ = ["asymmetry", "asymmetry_reason", "side_totals", "write_label_names"]

Volume = Mapping[str, Any]  # "voxels", "mm3", "mm3_fine"
BOTH = ("left", "right")


def _sum(volumes: Sequence[Volume]) -> dict[str, Any]:
    total: dict[str, Any] = {}
    for key in ("voxels", "mm3", "mm3_fine"):
        values = [volume[key] for volume in volumes]
        total[key] = None if None in values else sum(values)
    return total


def side_totals(volumes: Mapping[str, Volume], sides: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Sums the volumes of each side's classes, and of both sides if both are there.

    Args:
        volumes: volumes by class; the name of a class begins with its side.
        sides: the sides that were segmented.
    """
    totals = {side: _sum([v for name, v in volumes.items() if name.split()[0] == side]) for side in sides}
    if all(side in totals for side in BOTH):
        totals["both"] = _sum([totals[side] for side in BOTH])
    return totals


def asymmetry(totals: Mapping[str, Volume]) -> float | None:
    """Left minus right in percent of their mean, on the finest grid there is; None without both or without volume."""
    if not all(side in totals for side in BOTH):
        return None
    key = "mm3" if totals["left"]["mm3_fine"] is None else "mm3_fine"
    left, right = (float(totals[side][key]) for side in BOTH)
    return 200 * (left - right) / (left + right) if left + right > 0 else None


def asymmetry_reason(percent: float | None, limit: float | None) -> list[str]:
    """Reason to review a head whose sides differ by more than a limit, in percent of their mean; else none."""
    if percent is None or limit is None or abs(percent) <= limit:
        return []
    return [f"left and right differ by {abs(percent):.0f} % of their mean volume (the limit is {limit:g} %)"]


def write_label_names(prediction: Path, class_names: Sequence[str]) -> Path:
    """Writes the names of the labels of a prediction beside it, as BIDS does: ``<case>_seg.tsv``, index and name."""
    path = prediction.with_name(prediction.name.removesuffix(".nii.gz") + ".tsv")
    lines = ["index\tname", *(f"{index}\t{name}" for index, name in enumerate(class_names, start=1))]
    write_text(path, "\n".join(lines) + "\n")
    return path
