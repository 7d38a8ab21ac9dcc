"""Ignite handlers that MONAI lacks: averaged weights, checkpoints to resume from, a progress bar, CSV reports."""

from __future__ import annotations

import csv
import logging
import re
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import IterationEvents
from monai.handlers import CheckpointLoader, CheckpointSaver
from monai.utils import optional_import
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from .inferers import ResolutionRoutingInferer
from .metrics import ROW, SUMMARY_ROW, ScaleDice, summarise

__all__ = [
    "BestCheckpointSaver",
    "DiceReport",
    "ProgressBar",
    "ResumableCheckpoint",
    "UpdateAverage",
    "VolumeReport",
    "averaged_model",
    "has_tensorboard",
    "latest_checkpoint",
]

logger = logging.getLogger(__name__)


def averaged_model(network: torch.nn.Module, decay: float = 0.995) -> AveragedModel:
    """Exponential moving average of a network's weights (``torch.optim.swa_utils``); ``.module`` is the network."""
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay))


class UpdateAverage:
    """Updates an averaged model after every iteration.

    Args:
        averaged: the average.
        network: the network in training.
    """

    def __init__(self, averaged: AveragedModel, network: torch.nn.Module) -> None:
        self.averaged = averaged
        self.network = network

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: self.averaged.update_parameters(self.network))


class BestCheckpointSaver(CheckpointSaver):
    """MONAI's ``CheckpointSaver`` for the best metric, whose memory of the best so far can be saved and restored.

    Without it, the first validation after a resume would overwrite the best model, however good that was. Arguments
    as in MONAI, ``save_key_metric`` is always on.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, save_key_metric=True, **kwargs)

    def state_dict(self) -> dict:
        return self._key_metric_checkpoint.state_dict()


def latest_checkpoint(folder: str) -> str | None:
    """The newest whole ``checkpoint_epoch=N.pt`` in a folder; one cut short by a kill is passed over with a warning."""
    found = {
        int(m[1]): p for p in Path(folder).glob("*.pt") if (m := re.fullmatch(r"checkpoint_epoch=(\d+)\.pt", p.name))
    }
    for _, path in sorted(found.items(), reverse=True):
        try:
            torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            logger.warning(f"{path} cannot be read ({type(error).__name__}), trying the one before it")
        else:
            logger.info(f"resuming from {path}")
            return str(path)
    return None


class ResumableCheckpoint:
    """Saves everything a training needs to go on, and goes on from the newest checkpoint that is already there.

    MONAI's ``CheckpointSaver`` and ``CheckpointLoader`` in one, with the trainer itself (epoch and iteration) among
    the objects, which a config cannot refer to from its own handlers. The last two checkpoints are kept, because a
    kill can hit while one is written. Put it after the handlers whose state it saves.

    Args:
        save_dir: folder of the checkpoints.
        objects: what to save and restore, by name.
        interval: save every so many epochs.
        map_location: where to load tensors.
    """

    def __init__(self, save_dir: str, objects: dict[str, Any], interval: int = 1, map_location: Any = None) -> None:
        self.save_dir = save_dir
        self.objects = objects
        self.interval = interval
        self.map_location = map_location

    def attach(self, engine: Engine) -> None:
        objects = {"trainer": engine, **self.objects}
        newest = latest_checkpoint(self.save_dir)
        if newest is not None:
            CheckpointLoader(newest, objects, map_location=self.map_location).attach(engine)
        CheckpointSaver(self.save_dir, objects, save_interval=self.interval, n_saved=2).attach(engine)


@cache
def has_tensorboard() -> bool:
    """Whether TensorBoard is installed; says so once if not. For a config's ``_disabled_``."""
    _, found = optional_import("tensorboard")
    if not found:
        logger.warning("tensorboard is not installed: no curves (pip install 'rare-unet-networks[train]')")
    return found


class ProgressBar:
    """tqdm progress bar with remaining time and, in training, the loss; without tqdm it says so once and does nothing.

    Args:
        desc: text before the bar.
    """

    def __init__(self, desc: str = "training") -> None:
        self.desc = desc

    def attach(self, engine: Engine) -> None:
        _, has_tqdm = optional_import("tqdm")
        if not has_tqdm:
            logger.warning("tqdm is not installed: no progress bar (pip install 'rare-unet-networks[train]')")
            return
        from ignite.handlers.tqdm_logger import ProgressBar as IgniteProgressBar

        def loss(output: Any) -> dict[str, float]:
            return {"loss": float(output["loss"].detach())} if isinstance(output, dict) and "loss" in output else {}

        IgniteProgressBar(desc=self.desc, persist=True, mininterval=1.0).attach(engine, output_transform=loss)


class _CSV:
    """A CSV file that is whole after every row."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.columns = path, columns
        with open(path, "w", newline="") as file:
            csv.writer(file).writerow(columns)

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        with open(self.path, "a", newline="") as file:
            csv.DictWriter(file, self.columns).writerows(
                {k: f"{v:.4f}" if isinstance(v, float) and k != "scale" else v for k, v in row.items()} for row in rows
            )


class DiceReport:
    """Writes ``metrics/per_case.csv`` case by case and ``summary.csv`` at the end, and logs the summary.

    Args:
        metric: the evaluator's metric, whose rows are written.
        output_dir: where the files go.
    """

    def __init__(self, metric: ScaleDice, output_dir: str) -> None:
        self.metric = metric
        self.output_dir = Path(output_dir)
        self._written = 0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)

    def started(self) -> None:
        self._written = 0
        self._per_case = _CSV(self.output_dir / "metrics" / "per_case.csv", ROW)

    def iteration_completed(self) -> None:
        self._per_case.append(self.metric.rows[self._written :])
        self._written = len(self.metric.rows)

    def epoch_completed(self) -> None:
        summary = summarise(self.metric.rows)
        _CSV(self.output_dir / "summary.csv", SUMMARY_ROW).append(summary)
        for s in summary:
            left = f", {s['left_out']} left out" if s["left_out"] else ""
            place = f"scale {s['scale']!s:>7} {s['grid']:<6} {s['class']:<10}"
            logger.info(f"{place} {s['mean']:.4f} ± {s['sd']:.4f} (n {s['n']}{left})")


class VolumeReport:
    """Writes ``volumes.csv`` case by case: the volume of each class, the level used and the time it took.

    A table of the same is logged at the end.

    Columns: case, class, voxels, mm3, spacing (mm, of the file's own axes), level, seconds (resampling and network).

    Args:
        inferer: the evaluator's inferer, asked for the route.
        class_names: names of the classes above background, in order.
        output_dir: where the file goes.
    """

    columns = ("case", "class", "voxels", "mm3", "spacing", "level", "seconds")

    def __init__(self, inferer: ResolutionRoutingInferer, class_names: Sequence[str], output_dir: str) -> None:
        self.inferer = inferer
        self.class_names = list(class_names)
        self.output_dir = Path(output_dir)
        self._seconds = self._start = 0.0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.started)
        engine.add_event_handler(Events.ITERATION_STARTED, self.iteration_started)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self.forward_completed)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
        engine.add_event_handler(Events.COMPLETED, self.completed)

    def started(self) -> None:
        self._table: list[tuple[str, ...]] = [("case", "spacing mm", "level", "seconds", *self._headings)]
        self._file = _CSV(self.output_dir / "volumes.csv", self.columns)

    @property
    def _headings(self) -> list[str]:
        return [f"{name} mm3" for name in self.class_names]

    def completed(self) -> None:
        widths = [max(len(cell) for cell in column) for column in zip(*self._table)]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths)).rstrip() for line in self._table]
        logger.info("\n".join([f"answers and volumes.csv are in {self.output_dir}", *lines]))

    def iteration_started(self) -> None:
        self._start = time.perf_counter()

    def forward_completed(self) -> None:
        self._seconds = time.perf_counter() - self._start

    def iteration_completed(self, engine: Engine) -> None:
        for batch, output in zip(engine.state.batch, engine.state.output or []):
            pred = output["pred"]  # class indices on the file's own grid
            voxel = float(pred.pixdim.double().prod())
            level = self.inferer.route(batch["image"][None]).level
            spacing = "x".join(f"{float(s):.4g}" for s in pred.pixdim)
            rows = []
            for index, name in enumerate(self.class_names, start=1):
                voxels = int((pred == index).sum())
                values = (batch["case"], name, voxels, voxels * voxel, spacing, level, self._seconds)
                rows.append(dict(zip(self.columns, values)))
            self._file.append(rows)
            volumes = [f"{row['mm3']:.0f}" for row in rows]
            self._table.append((batch["case"], spacing, str(level), f"{self._seconds:.2f}", *volumes))
