"""Fits the model of trust to predictions of labelled scans, clean and corrupted: ``run calibrating``."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..utils.trust_model import LEAST_WIDTH, TrustModel, measures

__all__ = ["expected_mean", "fit_trust", "true_mean"]

Row = Mapping[str, Any]
COVERAGE = 0.9
NUM_FOLDS = 5
EDGES = (0.0, 0.7, 0.8, 0.87)  # of expected Dice, between which the error is averaged
LEAST_SCANS = 20  # for an interval of its own
EMPTY = 10.0  # limit of the score of a class that is not there at all
SMOOTHING = 0.01  # Dice; below it the absolute error is rounded off, so that its gradient is defined


def true_mean(row: Row) -> float:
    """Mean Dice of the classes that are defined."""
    values = [value for value in row["dice"] if not math.isnan(value)]
    return sum(values) / len(values)


def expected_mean(model: TrustModel, row: Row) -> float:
    """Mean expected Dice."""
    dice = model.expected_dice(row)
    return sum(dice) / len(dice)


def fit_trust(
    rows: Sequence[Row], class_names: Sequence[str], last: int, num_folds: int = NUM_FOLDS, ridge: float = 1e-3
) -> TrustModel:
    """Fits the model. Its errors and intervals are those of scans of subjects that the weights were not fitted to.

    Args:
        rows: for each scan its features (:py:func:`rare_unet_networks.utils.trust.trust_features`), and ``dice`` and
            ``true`` (volume of the label, mm³) by class, ``subject`` and ``kind``, ``"clean"`` or a corruption.
        class_names: classes above background.
        last: the coarsest level of the network.
        num_folds: parts of the subjects, each of which is predicted by a fit to the others.
        ridge: penalty of the squared weights.

    Raises:
        ValueError: if there are fewer subjects than folds, or no clean scan.
    """
    subjects = sorted({row["subject"] for row in rows})
    if len(subjects) < num_folds:
        raise ValueError(f"expected scans of at least {num_folds} subjects to fit trust, got {len(subjects)}.")
    if not any(row["kind"] == "clean" for row in rows):
        raise ValueError(f"expected a clean scan to fit trust, got {len(rows)} corrupted ones.")
    model = _fit_weights(rows, class_names, last, ridge)
    fold = {subject: number % num_folds for number, subject in enumerate(subjects)}
    pairs: list[tuple[Row, list[float]]] = []
    for number in range(num_folds):
        others = [row for row in rows if fold[row["subject"]] != number]
        held_out = _fit_weights(others, class_names, last, ridge)
        pairs += [(row, held_out.expected_dice(row)) for row in rows if fold[row["subject"]] == number]
    model.errors = _errors(pairs)
    model.intervals = _intervals(pairs, model)
    return model


def _fit_weights(rows: Sequence[Row], class_names: Sequence[str], last: int, ridge: float) -> TrustModel:
    """A model without errors and intervals."""
    volumes = []
    for index in range(len(class_names)):
        logs = [math.log(row["true"][index]) for row in rows if row["kind"] == "clean" and row["true"][index] > 0]
        logs = torch.tensor(logs, dtype=torch.float64)
        volumes.append([float(logs.mean()), max(float(logs.std()) if len(logs) > 1 else 0.0, 0.05)])
    fits = []
    for is_full in (False, True):
        chosen = [row for row in rows if not is_full or "stability" in row]
        fits.append(_logistic(chosen, volumes, last, is_full, ridge) if chosen else ([], [], []))
    return TrustModel(list(class_names), last, volumes, *fits[0], [], {}, *fits[1])


def _logistic(
    rows: Sequence[Row], volumes: list[list[float]], last: int, is_full: bool, ridge: float
) -> tuple[list[float], list[float], list[list[float]]]:
    """Centre and scale of the measures, and weights by class that minimise the mean absolute error of Dice."""
    by_class = []
    for index in range(len(volumes)):
        values = [measures(row, index, volumes, last, is_full) for row in rows]
        by_class.append(torch.tensor(values, dtype=torch.float64))
    stacked = torch.cat(by_class)
    centre, scale = stacked.mean(dim=0), stacked.std(dim=0).clamp(min=1e-3)
    weights = []
    for index, values in enumerate(by_class):
        dice = torch.tensor([row["dice"][index] for row in rows], dtype=torch.float64)
        defined = ~dice.isnan()
        x, dice = ((values - centre) / scale)[defined], dice[defined]
        x = torch.cat([torch.ones(len(x), 1, dtype=torch.float64), x], dim=1)
        weights.append(_minimise(x, dice, ridge))
    return centre.tolist(), scale.tolist(), weights


def _minimise(x: torch.Tensor, dice: torch.Tensor, ridge: float) -> list[float]:
    w = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([w], max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        error = torch.sigmoid(x @ w) - dice
        value = (error.square() + SMOOTHING**2).sqrt().mean() + ridge * w[1:].square().mean()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return w.detach().tolist()


def _errors(pairs: Sequence[tuple[Row, list[float]]]) -> list[list[float]]:
    """Mean absolute error of the mean Dice between each edge and the next."""
    errors = []
    for low, high in zip(EDGES, (*EDGES[1:], math.inf)):
        values = []
        for row, dice in pairs:
            mean = sum(dice) / len(dice)
            if low <= mean < high:
                values.append(abs(mean - true_mean(row)))
        if values:
            errors.append([low, sum(values) / len(values)])
    return errors


def _intervals(pairs: Sequence[tuple[Row, list[float]]], model: TrustModel) -> dict[str, dict[str, list[float]]]:
    """Limits by group (level, or a low expected Dice) and by class; a small group takes those of all scans."""
    groups: dict[str, list[tuple[Row, list[float]]]] = {}
    for row, dice in pairs:
        is_low = sum(dice) / len(dice) < model.limit
        groups.setdefault("low" if is_low else str(row["level"]), []).append((row, dice))
    names = [str(level) for level in range(model.last + 1)] + ["low"]
    enough = {name: groups[name] if len(groups.get(name, ())) >= LEAST_SCANS else list(pairs) for name in names}
    return {name: _limits(members, model.class_names) for name, members in enough.items()}


def _limits(pairs: Sequence[tuple[Row, list[float]]], class_names: Sequence[str]) -> dict[str, list[float]]:
    limits = {}
    for index, name in enumerate([*class_names, "total"]):
        scores: list[float] = []
        subjects: list[str] = []
        for row, dice in pairs:
            is_total = name == "total"
            true = sum(row["true"]) if is_total else row["true"][index]
            predicted = sum(row["label_volume"]) if is_total else row["label_volume"][index]
            expected = sum(dice) / len(dice) if is_total else dice[index]
            if predicted > 0:
                ratio = math.log(true / predicted) if true > 0 else -EMPTY
                scores.append(ratio / (1 - expected + LEAST_WIDTH))
                subjects.append(row["subject"])
        limits[name] = conformal_limits(scores, subjects, COVERAGE)
    return limits


def conformal_limits(scores: Sequence[float], subjects: Sequence[str], coverage: float) -> list[float]:
    """Two scores between which a score of a new subject lies with about this probability.

    The scores of a subject are alike, so many scores of few subjects say less than as many of many. As in hierarchical
    conformal prediction (Lee, Barber and Willett, "Distribution-free inference with hierarchical data", 2023), each of
    K subjects has the weight 1 / (K + 1), which its scores share. The new subject has the last such weight, half of it
    beyond each limit.

    Args:
        scores: of scans.
        subjects: the subject of each.
        coverage: probability.

    Returns:
        the limits; the outermost scores where the subjects are too few for the coverage.
    """
    if not scores:
        return [-EMPTY, EMPTY]
    counts = Counter(subjects)
    share = 1 / (len(counts) + 1)
    outside = (1 - coverage - share) / 2 + 1e-9
    weighted = sorted((score, share / counts[subject]) for score, subject in zip(scores, subjects))
    return [_first_above(weighted, outside), _first_above(weighted[::-1], outside)]


def _first_above(weighted: Sequence[tuple[float, float]], limit: float) -> float:
    """The first score up to which the weights add up to more than the limit."""
    total = 0.0
    for score, weight in weighted:
        total += weight
        if total > limit:
            return score
    return weighted[-1][0]
