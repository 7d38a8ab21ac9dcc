"""Measures of two predictions of one scan, from which :py:class:`TrustModel` estimates the Dice with the label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .labels import most_likely
from .quality import doubt

__all__ = ["TrustNotes", "soft_dice", "trust_features", "trust_mode"]

MODES = ("true", "false", "full")
LEAST = 1e-8


def trust_mode(value: bool | str) -> str:
    """Reads the option ``trust``: ``"true"``, ``"false"`` or ``"full"``.

    Raises:
        ValueError: if it is none of them.
    """
    text = {"1": "true", "0": "false"}.get(str(value), str(value).lower())
    if text not in MODES:
        raise ValueError(f"trust must be one of {MODES}, got {value!r}.")
    return text


@dataclass
class TrustNotes(int):
    """Measures of a prediction, in ``prediction.meta["trust"]``.

    As a :py:class:`rare_unet_networks.levels.Route` it is a number, so that ``decollate_batch`` hands it on.

    Attributes:
        features: what :py:func:`trust_features` returns, by side in a whole head, under ``""`` otherwise.
    """

    features: dict[str, dict[str, Any]]

    def __new__(cls, *_: Any, **__: Any) -> TrustNotes:
        return super().__new__(cls, 1)


def soft_dice(p: torch.Tensor, q: torch.Tensor) -> list[float]:
    """Dice of two predictions for each class above background, ``2 sum(pq) / (sum(p²) + sum(q²))``.

    Args:
        p: probabilities, shape (classes, *spatial_size), background first.
        q: likewise.

    Returns:
        1 for equal predictions, 0 for separate ones; 1 where neither has any foreground.
    """
    p, q = p[1:].flatten(1), q[1:].flatten(1)
    total = (p * p + q * q).sum(dim=1)
    return torch.where(total > LEAST, 2 * (p * q).sum(dim=1) / total.clamp(min=LEAST), 1.0).tolist()


def own_dice(p: torch.Tensor, labels: torch.Tensor) -> list[float]:
    """Dice of the label map with its own probabilities, by class: the Dice to expect if these are right.

    Args:
        p: probabilities, shape (classes, *spatial_size), background first.
        labels: the label map, shape spatial_size.
    """
    values = []
    for index in range(1, len(p)):
        mask = labels == index
        total = float(mask.sum()) + float(p[index].sum())
        values.append(2 * float(p[index][mask].sum()) / total if total > LEAST else 1.0)
    return values


def border_share(p: torch.Tensor) -> float:
    """Share of the expected foreground that lies in the outermost layer of voxels."""
    foreground = 1 - p[0]
    inner = foreground[(slice(1, -1),) * foreground.ndim]
    return 1 - float(inner.sum()) / max(float(foreground.sum()), LEAST)


def trust_features(
    own: torch.Tensor,
    second: torch.Tensor,
    shifted: torch.Tensor | None,
    route: Any,
    level_spacing: Sequence[float] | None,
) -> dict[str, Any]:
    """Measures of a prediction and a second one of the same scan.

    Args:
        own: probabilities, shape (classes, *spatial_size), background first.
        second: those of the second prediction, on the same grid.
        shifted: those of the scan shifted by one voxel, or None.
        route: the :py:class:`rare_unet_networks.levels.Route` of the scan.
        level_spacing: voxel size of level 0 in mm, used if the scan was placed by its size.

    Returns:
        ``agreement``, ``confidence`` (:py:func:`own_dice`) and ``volume`` (expected, mm³; the label map's in
        ``label_volume``), lists by class; ``doubt`` of both predictions; ``border``; ``spacing`` (geometric mean, mm);
        ``anisotropy``; ``level``; and ``stability``, the agreement with ``shifted``, if there is one.
    """
    axes = own.ndim - 1
    spacing = route.spacing or [s * f for s, f in zip(level_spacing or (1.0,) * axes, route.scale)]
    voxel = math.prod(s * n / m for s, n, m in zip(spacing, route.spatial_size, own.shape[1:]))
    labels = most_likely(own)
    features: dict[str, Any] = {
        "agreement": soft_dice(own, second),
        "confidence": own_dice(own, labels),
        "volume": [float(p.sum()) * voxel for p in own[1:]],
        "label_volume": [int((labels == index).sum()) * voxel for index in range(1, len(own))],
        "doubt": [float(doubt(p[None])) for p in (own, second)],
        "border": border_share(own),
        "spacing": math.prod(spacing) ** (1 / axes),
        "anisotropy": max(spacing) / min(spacing),
        "level": route.level,
    }
    if shifted is not None:
        features["stability"] = soft_dice(own, shifted)
    return features
