"""Scores per case, scale, grid and class, for the validation of a training and for ``run evaluating``."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from ignite.engine import Engine
from ignite.metrics import Metric
from monai.data.utils import affine_to_spacing
from monai.metrics import compute_dice, compute_hausdorff_distance
from monai.networks.utils import one_hot
from monai.utils import optional_import

from ..levels import level_scale
from ..utils.distributed import all_gather, world_size
from .summary import KEY, ROW, SUMMARY_ROW, mean_of_defined, summarise

__all__ = ["MultiScaleMetrics", "dice_per_class", "distance_per_class", "has_scipy", "volume_error_per_class"]

logger = logging.getLogger(__name__)
# grid -> keys of (prediction, label) in the output and the batch after postprocessing
GRIDS = {
    "native": ("pred", "label"),
    "native_nearest": ("pred_nearest", "label_nearest"),
    "full": ("pred_fine", "label_fine"),
}
SELECTED = ("native", "full")  # their average selects the best weights of a training


def dice_per_class(pred: torch.Tensor, label: torch.Tensor, num_classes: int) -> list[float]:
    """Dice of each class above background; NaN if a class is in neither map, 0 if it is in one of them only.

    Args:
        pred: class indices, shape (1, D, H, W).
        label: likewise.
        num_classes: classes, background included.

    Raises:
        ValueError: if the shapes differ.
    """
    if pred.shape != label.shape:
        raise ValueError(f"pred and label must have one shape, got {tuple(pred.shape)} and {tuple(label.shape)}.")
    maps = [one_hot(torch.as_tensor(m)[None].long(), num_classes) for m in (pred, label)]
    dice = compute_dice(*maps, include_background=False, ignore_empty=False)[0]  # (classes,), 1 where both are empty
    empty = (maps[0] + maps[1])[0, 1:].flatten(1).sum(dim=1) == 0
    return [math.nan if e else float(d) for d, e in zip(dice, empty)]


def distance_per_class(
    pred: torch.Tensor, label: torch.Tensor, num_classes: int, spacing: Sequence[float]
) -> list[float]:
    """95th percentile of the symmetric surface distance in mm; NaN if a class is in only one map or in neither.

    Args:
        pred: class indices, shape (1, D, H, W).
        label: likewise.
        num_classes: classes, background included.
        spacing: voxel size in mm.
    """
    maps = [one_hot(torch.as_tensor(m)[None].long().cpu(), num_classes) for m in (pred, label)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI warns of empty classes, which get NaN here
        hd95 = compute_hausdorff_distance(*maps, include_background=False, percentile=95, spacing=list(spacing))[0]
    present = (maps[0].flatten(2).any(dim=2) & maps[1].flatten(2).any(dim=2))[0, 1:]
    return [float(d) if p else math.nan for d, p in zip(hd95, present)]


def volume_error_per_class(pred: torch.Tensor, label: torch.Tensor, num_classes: int) -> list[float]:
    """Volume difference of each class in percent of the label's volume, > 0 if too large; NaN if the label lacks it.

    Args:
        pred: class indices, shape (1, D, H, W).
        label: likewise.
        num_classes: classes, background included.
    """
    errors = []
    for index in range(1, num_classes):
        pred_voxels, label_voxels = int((pred == index).sum()), int((label == index).sum())
        errors.append(100 * (pred_voxels / label_voxels - 1) if label_voxels else math.nan)
    return errors


@cache
def has_scipy() -> bool:
    """Whether scipy is installed, for a config's ``distances``; logs a warning once if not."""
    _, is_installed = optional_import("scipy")
    if not is_installed:
        logger.warning("scipy is not installed: no surface distances (pip install 'rare-unet-networks[evaluate]')")
    return is_installed


def _union(labels: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
    """Mask of the voxels that belong to one of ``classes``; a ``MetaTensor`` keeps its affine."""
    return sum((labels == c) for c in classes) > 0


class MultiScaleMetrics(Metric):
    """Ignite metric: Dice of each class at each scale, and its average over scales and grids.

    Reads ``pred``, ``label``, ``case`` and ``level`` of every decollated item and, if they exist, the keys of the other
    grids: ``pred_nearest`` and ``label_nearest`` (the paper's labels), ``pred_fine`` and ``label_fine``. Where a case
    has ``pred_fine`` but no ``label_fine``, because its label is too coarse, its scores on the full grid are NaN.

    Writes into ``engine.state.metrics``, under the metric's name, the average Dice over scales of the native grid, or
    the mean of those of the native and the full grid if both exist. Adds an entry per scale and class of the native
    grid, such as ``<name>_scale_0.5_anterior``.

    ``rows`` holds the per-case rows of the epoch, at its end those of all ranks; ``summary`` is the result of
    :py:func:`summarise`.

    Args:
        class_names: names of the classes above background, in order.
        distances: whether surface distances are computed too, beside Dice and volume error; needs scipy.
        regions: further structures to score, each the union of a list of class indices, by name, such as BraTS's whole
            tumour. They do not count in means over classes.
    """

    columns = ROW  # of a row
    group, summary_columns = "scale", SUMMARY_ROW  # what the summary's lines are of, and its columns

    def __init__(
        self,
        class_names: Sequence[str],
        distances: bool = False,
        regions: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self.class_names = list(class_names)
        self.distances = distances
        self.regions = {name: list(classes) for name, classes in (regions or {}).items()}
        super().__init__()

    def reset(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.summary: list[dict[str, Any]] = []

    def iteration_completed(self, engine: Engine) -> None:
        # FaultTolerantEvaluator leaves no output if a case failed.
        if engine.state.output:
            self.update([{**b, **o} for b, o in zip(engine.state.batch, engine.state.output)])

    def update(self, output: Sequence[dict[str, Any]]) -> None:
        for item in output:
            for grid, (pred, label) in GRIDS.items():
                if pred not in item:
                    continue
                key = self._key(item, grid)
                if label in item:
                    # The engine moves only the keys that it knows to its device, so the label may be on another.
                    maps = item[pred], item[label].to(item[pred].device)
                    self._add(key, self.class_names, *maps)
                    for name, classes in self.regions.items():
                        self._add(key, [name], *(_union(m, classes) for m in maps))
                elif grid == "full":
                    undefined = [math.nan] * (3 if self.distances else 2)
                    for name in [*self.class_names, *self.regions]:
                        self.rows.append(dict(zip(self.columns, (*key, name, *undefined))))

    def _key(self, item: Mapping[str, Any], grid: str) -> tuple:
        """What a row is of, in the order of ``columns``."""
        scale = level_scale(int(item["level"]))
        return item["case"], 1 / scale if scale > 1 else 1, grid

    def _add(self, key: tuple, names: Sequence[str], pred: torch.Tensor, label: torch.Tensor) -> None:
        scores = self._scores(pred, label, len(names) + 1)
        for name, class_scores in zip(names, zip(*scores)):
            self.rows.append(dict(zip(self.columns, (*key, name, *class_scores))))

    def _scores(self, pred: torch.Tensor, label: torch.Tensor, num_classes: int) -> list[list[float]]:
        """Measures in the order of ``ROW``, each a list with an entry per class."""
        scores = [function(pred, label, num_classes) for function in (dice_per_class, volume_error_per_class)]
        if self.distances:
            spacing = affine_to_spacing(label.affine, label.ndim - 1).tolist()
            scores.append(distance_per_class(pred, label, num_classes, spacing))
        return scores

    def compute(self) -> float:
        if world_size() > 1:
            # A distributed sampler may repeat cases to fill the last batch: each counts once.
            rows_by_key = {}
            for rows_of_rank in all_gather(self.rows):
                for row in rows_of_rank:
                    rows_by_key[tuple(row[column] for column in KEY)] = row
            # The order of a datalist: by case, then from the finest scale to the coarsest.
            self.rows = sorted(rows_by_key.values(), key=lambda row: (row["case"], -row["scale"]))
        self.summary = summarise(self.rows, self.regions)
        averages = []
        for line in self.summary:
            is_average = line["scale"] == "average" and line["class"] == "mean" and line["measure"] == "dice"
            if is_average and line["grid"] in SELECTED:
                averages.append(line["mean"])
        return mean_of_defined(averages)

    def completed(self, engine: Engine, name: str) -> None:
        super().completed(engine, name)
        for line in self.summary:
            if line["grid"] == "native" and line["scale"] != "average" and line["measure"] == "dice":
                engine.state.metrics[f"{name}_scale_{line['scale']}_{line['class']}"] = line["mean"]
