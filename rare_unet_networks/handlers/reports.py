"""Ignite handlers that write what an evaluation or inference found, case by case, as CSV and in the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.engines import IterationEvents

from ..data.datalists import case_id
from ..metrics.multi_scale import MultiScaleMetrics
from ..utils.distributed import all_gather, rank
from ..utils.tables import CaseTable, aligned

__all__ = ["PerCaseMetricsSaver", "VolumeSaver"]

logger = logging.getLogger(__name__)


class PerCaseMetricsSaver:
    """Writes ``metrics/per_case.csv`` case by case and ``summary.csv`` at the end, and logs the summary.

    Of several processes the first writes: its own cases one by one, and at the end those of all, in the order that one
    process gives them.

    Args:
        metric: the evaluator's metric, whose rows are written.
        output_dir: where the files go.
    """

    def __init__(self, metric: MultiScaleMetrics, output_dir: str) -> None:
        self.metric = metric
        self.output_dir = Path(output_dir)
        self._written = 0

    def attach(self, engine: Engine) -> None:
        if rank() == 0:
            engine.add_event_handler(Events.STARTED, self.started)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)

    def _new_file(self) -> CaseTable:
        return CaseTable(self.output_dir / "metrics" / "per_case.csv", self.metric.columns)

    def started(self) -> None:
        self._written = 0
        self._per_case = self._new_file()

    def iteration_completed(self) -> None:
        self._per_case.append(self.metric.rows[self._written :])
        self._written = len(self.metric.rows)

    def epoch_completed(self) -> None:
        if len(self.metric.rows) > self._written:  # the metric has those of other processes now
            self._new_file().append(self.metric.rows)
        CaseTable(self.output_dir / "summary.csv", self.metric.summary_columns).append(self.metric.summary)
        logger.info(f"summary.csv and metrics/per_case.csv are in {self.output_dir}\n{aligned(self._overview())}")

    def _overview(self) -> list[list[str]]:
        """The summary's means, a line per grid and scale."""
        group = self.metric.group
        means = {(s["grid"], s[group], s["class"], s["measure"]): s["mean"] for s in self.metric.summary}
        columns = [("dice", name) for name in [*self.metric.class_names, "mean", *self.metric.regions]]
        columns += [(m, "mean") for m in dict.fromkeys(key[3] for key in means) if m != "dice"]
        lines = [["grid", group, *(f"{measure} {name}" for measure, name in columns)]]
        for grid, scale in dict.fromkeys(key[:2] for key in means):
            cells = [f"{means[grid, scale, name, measure]:.3f}" for measure, name in columns]
            lines.append([grid, str(scale), *cells])
        return lines


def _volume(labels: MetaTensor, index: int) -> float:
    """Volume of a class in mm3, on sheared grids too."""
    return int((labels == index).sum()) * float(torch.linalg.det(labels.affine[:3, :3].double()).abs())


class VolumeSaver:
    """Writes ``volumes.csv`` case by case: the volume of each class, the level used and the time it took.

    A table of the same is logged at the end. What earlier runs wrote of other cases stays; a case that is done again
    has no rows until it is. Several processes write one file, and the first logs the table of all.

    Columns: case, class, voxels and mm3 on the scan's own grid, mm3_fine (on the level 0 grid, where there is an answer
    on it), spacing (mm, of the file's own axes), level (of the ``route`` in a prediction's metadata), seconds
    (resampling and network).

    Args:
        class_names: names of the classes above background, in order.
        output_dir: where the file goes.
    """

    columns = ("case", "class", "voxels", "mm3", "mm3_fine", "spacing", "level", "seconds")

    def __init__(self, class_names: Sequence[str], output_dir: str) -> None:
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
        volumes = [f"{name} mm3{grid}" for name in self.class_names for grid in ("", " (full)")]
        self._heading = ("case", "spacing mm", "level", "seconds", *volumes)
        self._lines: list[tuple[str, ...]] = []
        self._file = CaseTable(self.output_dir / "volumes.csv", self.columns, keep=True)

    def completed(self) -> None:
        lines = [self._heading, *(line for part in all_gather(self._lines) for line in part)]
        if rank() == 0 and len(lines) > 1:
            logger.info(f"answers and volumes.csv are in {self.output_dir}\n{aligned(lines)}")

    def iteration_started(self, engine: Engine) -> None:
        # Rows of before would say that an answer is whole, which it is not if this run is cut short.
        self._file.replace(engine.state.batch.get("case", ()))
        self._start = time.perf_counter()

    def forward_completed(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # the call returns before the GPU is done
        self._seconds = time.perf_counter() - self._start

    def iteration_completed(self, engine: Engine) -> None:
        for batch, output in zip(engine.state.batch, engine.state.output or []):
            pred = output["pred"]  # class indices on the file's own grid
            level = pred.meta["route"].level
            spacing = "x".join(f"{float(s):.4g}" for s in pred.pixdim)
            case = batch.get("case") or case_id(batch["image"].meta["filename_or_obj"])
            rows = []
            for index, name in enumerate(self.class_names, start=1):
                voxels = int((pred == index).sum())
                volumes = [_volume(output[key], index) if key in output else "" for key in ("pred", "pred_fine")]
                values = (case, name, voxels, *volumes, spacing, level, self._seconds)
                rows.append(dict(zip(self.columns, values)))
            self._file.replace([case], rows)
            cells = [row[column] for row in rows for column in ("mm3", "mm3_fine")]
            volumes = [f"{cell:.0f}" if isinstance(cell, float) else "" for cell in cells]
            self._lines.append((case, spacing, str(level), f"{self._seconds:.2f}", *volumes))
