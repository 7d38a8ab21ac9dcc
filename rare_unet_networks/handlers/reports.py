"""An Ignite handler that writes the scores of an evaluation, case by case, as CSV and in the log."""

from __future__ import annotations

import logging
from pathlib import Path

from ignite.engine import Engine, Events

from ..metrics.multi_scale import MultiScaleMetrics
from ..utils.distributed import rank
from ..utils.tables import aligned, append_rows, write_rows

__all__ = ["PerCaseMetricsSaver"]

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
        if len(self.metric.rows) > self._written:  # the metric has those of other processes now
            write_rows(self._per_case, self.metric.columns, self.metric.rows)
        write_rows(self.output_dir / "summary.csv", self.metric.summary_columns, self.metric.summary)
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
