"""Estimates the Dice of a prediction with its label, and an interval of its volume, from measures without a label.

:py:func:`rare_unet_networks.bundle.fit_trust` fits the model. Its numbers lie in a JSON file beside the weights.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from .trust import TrustNotes

__all__ = ["TrustModel", "load_trust_model", "measures", "trust_entries"]

LEAST_WIDTH = 0.02  # so that the interval of a prediction that is certain has a width
MEASURES = (
    *("agreement", "agreement of others", "confidence", "doubt", "doubt of second", "volume", "size", "border"),
    *("spacing", "anisotropy", "is last", "agreement²", "confidence²", "doubt²", "volume²"),
    *("agreement × spacing", "confidence × spacing", "doubt × spacing", "volume × spacing", "agreement × is last"),
)
STABILITY = ("stability", "stability × spacing")  # further measures of trust "full"


def logit(p: float, least: float = 0.002) -> float:
    """Logarithm of the odds of a probability, which is kept away from 0 and 1."""
    p = min(max(p, least), 1 - least)
    return math.log(p / (1 - p))


def z_score(volume: float, mean: float, sd: float) -> float:
    """Standard deviations between the logarithm of a volume and its mean, -6 to 6."""
    return min(max((math.log(max(volume, 1e-3)) - mean) / sd, -6.0), 6.0)


def measures(
    features: Mapping[str, Any], index: int, volumes: Sequence[Sequence[float]], last: int, is_full: bool = False
) -> list[float]:
    """The model's measures of a class, in the order of ``MEASURES``.

    Args:
        features: of the prediction, see :py:func:`rare_unet_networks.utils.trust.trust_features`.
        index: number of the class, 0 the first above background.
        volumes: mean and standard deviation of the logarithm of the volume (mm³), by class.
        last: the coarsest level, whose second prediction is of another kind.
        is_full: whether those of ``STABILITY`` are added.
    """
    others = [a for i, a in enumerate(features["agreement"]) if i != index] or [features["agreement"][index]]
    agreement, confidence = logit(features["agreement"][index]), logit(features["confidence"][index])
    doubt, second = (math.log(min(max(value, 1e-3), 1e3)) for value in features["doubt"])
    z = z_score(features["volume"][index], *volumes[index])
    spacing, is_last = math.log2(features["spacing"]), float(features["level"] == last)
    border = math.sqrt(max(features["border"], 0.0))
    values = [agreement, logit(sum(others) / len(others)), confidence, doubt, second, z, abs(z), border]
    values += [spacing, math.log2(features["anisotropy"]), is_last]
    values += [v * v for v in (agreement, confidence, doubt, z)]
    values += [v * spacing for v in (agreement, confidence, doubt, z)] + [agreement * is_last]
    if is_full:
        stability = logit(features["stability"][index])
        values += [stability, stability * spacing]
    return values


@dataclass
class TrustModel:
    """Logistic model of the Dice of each class, and intervals of volumes.

    Attributes:
        class_names: classes above background.
        last: the coarsest level of the network.
        volumes: mean and standard deviation of the logarithm of each class's volume (mm³) in the training data.
        centre, scale: of each measure; it is centred and divided before it is weighted.
        weights: of the intercept and of each measure, by class.
        full_centre, full_scale, full_weights: the same with the measures of trust ``"full"``; empty if it has none.
        errors: pairs of an expected Dice and the mean absolute error of predictions from there on, in ascending order.
        intervals: low and high limit of ``log(true / predicted volume) / (1 - expected Dice + 0.02)`` by class, and of
            all classes together as ``total``; by level as text, for those below ``limit`` under ``"low"``.
        limit: smallest expected Dice without a review.
        range: standard deviations of the volume's logarithm without a review.
        weights_sha256: digest of the network's weights.
    """

    class_names: list[str]
    last: int
    volumes: list[list[float]]
    centre: list[float]
    scale: list[float]
    weights: list[list[float]]
    errors: list[list[float]]
    intervals: dict[str, dict[str, list[float]]]
    full_centre: list[float]
    full_scale: list[float]
    full_weights: list[list[float]]
    limit: float = 0.7
    range: float = 3.5
    weights_sha256: str = ""

    def expected_dice(self, features: Mapping[str, Any]) -> list[float]:
        """Dice with the label that is expected of each class."""
        is_full = "stability" in features and bool(self.full_weights)
        centre, scale, weights = self.centre, self.scale, self.weights
        if is_full:
            centre, scale, weights = self.full_centre, self.full_scale, self.full_weights
        dice = []
        for index, (intercept, *weights_of_class) in enumerate(weights):
            values = measures(features, index, self.volumes, self.last, is_full)
            terms = [w * (v - c) / s for w, v, c, s in zip(weights_of_class, values, centre, scale)]
            dice.append(1 / (1 + math.exp(-min(max(intercept + sum(terms), -30.0), 30.0))))
        return dice

    def error(self, dice: float) -> float:
        """Mean absolute error of an expected Dice, out of fold."""
        return [error for start, error in self.errors if dice >= start or start == self.errors[0][0]][-1]

    def interval(self, name: str, volume: float, dice: Sequence[float], level: int) -> list[float] | None:
        """Interval that has the true volume in 90 % of scans, mm³; None for a volume of 0.

        Args:
            name: a class, or ``"total"``.
            volume: of the label map, mm³.
            dice: expected Dice of each class.
            level: level of the scan.
        """
        mean = sum(dice) / len(dice)
        limits = self.intervals.get("low" if mean < self.limit else str(level))
        if volume <= 0 or limits is None:
            return None
        expected = mean if name == "total" else dice[self.class_names.index(name)]
        return [volume * math.exp(limit * (1 - expected + LEAST_WIDTH)) for limit in limits[name]]

    def reasons(self, features: Mapping[str, Any], prefix: str = "") -> list[str]:
        """Reasons to review a prediction: a low expected Dice, a volume outside the range of the training."""
        dice = self.expected_dice(features)
        mean = sum(dice) / len(dice)
        reasons = []
        if mean < self.limit:
            reasons.append(
                f"the expected Dice {f'of the {prefix} one ' if prefix else ''}is low ({mean:.2f}, the limit is "
                f"{self.limit:.2f})"
            )
        for name, volume, (centre, sd) in zip(self.class_names, features["label_volume"], self.volumes):
            low, high = (math.exp(centre + sign * self.range * sd) for sign in (-1, 1))
            if volume > 0 and not low <= volume <= high:  # an empty class has a reason of its own
                reasons.append(
                    f"the volume of {f'{prefix} {name}'.strip()} ({volume:.0f} mm3) is outside the range of the "
                    f"training ({low:.0f} to {high:.0f} mm3)"
                )
        return reasons

    def save(self, path: str | Path) -> None:
        """Writes the model as JSON with 5 digits."""
        rounded = json.loads(json.dumps(asdict(self)), parse_float=lambda text: float(f"{float(text):.5g}"))
        Path(path).write_text(json.dumps(rounded) + "\n", encoding="utf-8")


def load_trust_model(path: str | Path) -> TrustModel:
    """Reads a model.

    Raises:
        ValueError: if the file is missing or is no model.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected a trust model (run calibrating writes one): {error}") from None
    names = {field.name for field in fields(TrustModel)}
    if not isinstance(content, dict) or set(content) != names:
        raise ValueError(f"{path}: expected the entries {sorted(names)} of a trust model, got {sorted(content)}.")
    return TrustModel(**content)


def trust_entries(notes: TrustNotes, class_names: Sequence[str], model: TrustModel | None = None) -> dict[str, Any]:
    """Returns the entries of a record about the trust in a prediction.

    Args:
        notes: of the prediction.
        class_names: classes above background of one side.
        model: the model; None if there is none for the weights.

    Returns:
        ``agreement``, and with a model ``expected_dice`` (both with ``mean`` and, by class, ``classes``;
        ``expected_dice`` with its ``error`` too) and ``volume_interval``: [low, high] in mm³ by class and ``total``, in
        a whole head the sides' names. None where there is no prediction of the class.
    """
    agreements: dict[str, float] = {}
    dice: dict[str, float] = {}
    intervals: dict[str, list[float] | None] = {}
    for side, features in notes.features.items():
        names = [f"{side} {name}".strip() for name in class_names]
        agreements.update(zip(names, features["agreement"]))
        if model is None:
            continue
        expected = model.expected_dice(features)
        dice.update(zip(names, expected))
        volumes = features["label_volume"]
        for name, title, volume in zip(
            [*class_names, "total"], [*names, side or "total"], [*volumes, sum(volumes)], strict=True
        ):
            intervals[title] = model.interval(name, volume, expected, features["level"])
    entries: dict[str, Any] = {"agreement": _with_mean(agreements)}
    if model is not None:
        entries["expected_dice"] = _with_mean(dice)
        entries["expected_dice"]["error"] = model.error(entries["expected_dice"]["mean"])
        entries["volume_interval"] = intervals
    return entries


def _with_mean(values: Mapping[str, float]) -> dict[str, Any]:
    return {"mean": sum(values.values()) / len(values), "classes": dict(values)}
