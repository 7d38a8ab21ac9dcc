"""Ignite handler that writes the scores of an evaluation to CSV files and to the log."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from ..metrics.multi_scale import MultiScaleMetrics
from ..utils.distributed import rank
from ..utils.tables import aligned, append_rows, write_rows

__all__ = ["PerCaseMetricsSaver"]

logger = logging.getLogger(__name__)


class PerCaseMetricsSaver:
    """Writes ``metrics/per_case.csv`` case by case and ``summary.csv`` at the end, and logs the summary.

    In a distributed run only rank 0 writes: its own cases one by one, and at the end those of all ranks, in the same
    order as a single process.

    Args:
        metric: the evaluator's metric, whose rows are written.
        output_dir: folder of the files.
    """

    def __init__(self, metric: MultiScaleMetrics, output_dir: str) -> None:
        self.metric = metric
        self.output_dir = Path(output_dir)
        self._per_case = self.output_dir / "metrics" / "per_case.csv"
        self._written = 0

    def attach(self, engine: Engine) -> None:
        if rank() == 0:
            engine.add_event_handler(Events.STARTED, self.started)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)

    def started(self) -> None:
        self._written = 0
        write_rows(self._per_case, self.metric.columns)

    def iteration_completed(self) -> None:
        append_rows(self._per_case, self.metric.columns, self.metric.rows[self._written :])
        self._written = len(self.metric.rows)

    def epoch_completed(self) -> None:
        if len(self.metric.rows) > self._written:  # the metric has gathered the rows of the other ranks
            write_rows(self._per_case, self.metric.columns, self.metric.rows)
        write_rows(self.output_dir / "summary.csv", self.metric.summary_columns, self.metric.summary)
        logger.info(f"summary.csv and metrics/per_case.csv are in {self.output_dir}\n{aligned(self._overview())}")

    def _overview(self) -> list[list[str]]:
        """Means of the summary: a line per grid and group, with Dice of every class and class means of the rest."""
        means_by_line: dict[tuple[str, Any], dict[tuple[str, str], float]] = {}
        measures: dict[str, None] = {}  # in order of appearance
        for row in self.metric.summary:
            means_by_line.setdefault((row["grid"], row[self.metric.group]), {})[row["measure"], row["class"]] = row[
                "mean"
            ]
            measures[row["measure"]] = None
        columns = [("dice", name) for name in [*self.metric.class_names, "mean", *self.metric.regions]]
        columns += [(measure, "mean") for measure in measures if measure != "dice"]
        lines = [["grid", self.metric.group, *(f"{measure} {name}" for measure, name in columns)]]
        for (grid, scale), means in means_by_line.items():
            lines.append([grid, str(scale), *(f"{means[column]:.3f}" for column in columns)])
        return lines
