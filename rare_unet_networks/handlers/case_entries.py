"""Entries of a case's record, and what the log says of a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor

from ..data.head_volumes import asymmetry, side_totals
from ..data.record_files import is_refused
from ..inferers.whole_head import HeadNotes
from ..levels import Route
from ..utils.labels import count_labels
from ..utils.resampling import as_plain_tensor

__all__ = ["cells", "in_words", "recorded_head", "recorded_route", "recorded_volumes", "without_intervals_of_empty"]


def _voxel_volume(labels: MetaTensor) -> float:
    """Volume of a voxel in mm3; the determinant makes it right on sheared grids too."""
    return float(torch.linalg.det(labels.affine[:3, :3].double()).abs())


def recorded_volumes(pred: MetaTensor, fine: MetaTensor | None, classes: Mapping[int, str]) -> dict[str, Any]:
    """Entries of a record about the volumes of each class.

    Args:
        pred: class indices on the scan's grid.
        fine: likewise on the grid of level 0, if it was predicted.
        classes: names of the classes by index.
    """
    grids = {"mm3": pred} if fine is None else {"mm3": pred, "mm3_fine": fine}
    voxels = {key: count_labels(as_plain_tensor(labels), max(classes) + 1) for key, labels in grids.items()}
    volumes = {}
    for index, name in classes.items():
        volumes[name] = {"voxels": voxels["mm3"][index], "mm3": None, "mm3_fine": None}
        for key, labels in grids.items():
            volumes[name][key] = voxels[key][index] * _voxel_volume(labels)
    return volumes


def without_intervals_of_empty(entries: Mapping[str, Any], volumes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Entries of trust; a class of which no voxel is left after removing small pieces has no interval."""
    intervals = entries.get("volume_interval")
    if intervals is None:
        return dict(entries)
    empty = [name for name, volume in volumes.items() if not volume["voxels"]]
    return {**entries, "volume_interval": {name: None if name in empty else i for name, i in intervals.items()}}


def recorded_route(route: Route) -> dict[str, Any]:
    """Entries of a record about a route."""
    return {
        "reason": route.reason,
        "scale": list(route.scale),
        "spacing": None if route.spacing is None else [float(s) for s in route.spacing],
        "spatial_size": list(route.spatial_size),
        "resampled_size": list(route.resampled_size),
        "is_resampled": route.resampled_size != route.spatial_size,
    }


def recorded_head(head: HeadNotes, volumes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Entries of a record about a whole head, beside those of a crop."""
    totals = side_totals(volumes, head.sides)
    return {
        "totals": totals,
        "asymmetry": asymmetry(totals),
        "labels": {str(index): name for index, name in enumerate(head.class_names, start=1)},
        "head": {
            "sides": head.sides,
            "turned": head.turned,
            "centres": head.centres,
            "confidence": head.confidence,
        },
    }


def _spacing(record: Mapping[str, Any], cross: str) -> str:
    return cross.join(f"{s:.4g}" for s in record["spacing"])


def cells(record: Mapping[str, Any], class_names: Sequence[str]) -> tuple[str, ...]:
    """Cells of a case in the table of the log; in a whole head the volumes of both sides share a cell."""
    volumes = []
    for name in class_names:
        of_class = [
            v for n, v in record["volumes"].items() if n == name or ("head" in record and n.endswith(f" {name}"))
        ]
        for key in ("mm3", "mm3_fine"):
            volumes.append("+".join("" if v.get(key) is None else f"{v[key]:.0f}" for v in of_class).strip("+"))
    to_review = "yes" if record.get("review") else ""
    placed = ("none", "") if is_refused(record) else (str(record["level"]), f"{record['seconds']:.2f}")
    return record["case"], _spacing(record, "x"), *placed, *volumes, to_review


def in_words(record: Mapping[str, Any]) -> str:
    """A case in one line of the log."""
    parts = [f"{_spacing(record, '×')} mm -> level {record['level']}"]
    if record["side"]:
        parts.append(f"{record['side']} side")
    for name, volume in record["volumes"].items():
        is_fine = record["grid"] == "fine" and volume["mm3_fine"] is not None
        parts.append(f"{name} {volume['mm3_fine' if is_fine else 'mm3']:.0f} mm3")
    if record["doubt"] is not None:
        parts.append(f"doubt {record['doubt']:.2f}")
    parts.append(f"{record['seconds']:.2f} s")
    review = f"; to be reviewed: {'; '.join(record['review'])}" if record["review"] else ""
    return f"{record['case']}: {', '.join(parts)}{review}"
