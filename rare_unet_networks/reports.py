"""Ignite handlers that write what an evaluation or inference found, case by case, as CSV and in the log."""

from __future__ import annotations

import csv
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import IterationEvents

from .inferers import ResolutionRoutingInferer
from .metrics import ROW, SUMMARY_ROW, ScaleDice, summarise

__all__ = ["DiceReport", "VolumeReport"]

logger = logging.getLogger(__name__)


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
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # the call returns before the GPU is done
        self._seconds = time.perf_counter() - self._start

    def iteration_completed(self, engine: Engine) -> None:
        for batch, output in zip(engine.state.batch, engine.state.output or []):
            pred = output["pred"]  # class indices on the file's own grid
            voxel = float(torch.linalg.det(pred.affine[:3, :3].double()).abs())  # mm3, of sheared grids too
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
