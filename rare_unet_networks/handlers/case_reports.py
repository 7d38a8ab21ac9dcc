"""Ignite handler that draws a picture of each segmented case, and a page of all cases at the end."""

from __future__ import annotations

from ignite.engine import Engine, Events

from ..data.record_files import is_refused, read_record, record_path
from ..data.records import CaseRecords
from ..reports.figures import figure_of
from ..reports.page import can_report, write_report
from ..utils.distributed import all_gather, rank
from .case_records import cases_of

__all__ = ["ReportSaver"]


class ReportSaver:
    """Draws the picture of each case after its record, and writes ``report.html`` at the end.

    Attach it after :py:class:`CaseRecordSaver`. In a distributed run every rank draws its own cases, and rank 0 writes
    the page when all are done.

    Args:
        records: the records in the folder of the predictions.
        report: whether to write the report; ``"interactive"`` with a viewer for each case. Without matplotlib none is
            written, and the log says so.
        niivue_file: the program of the viewer.

    Raises:
        ValueError: if ``report`` is another word, or the program is missing.
    """

    def __init__(self, records: CaseRecords, report: bool | str = True, niivue_file: str | None = None) -> None:
        self.records = records
        self.report = report
        self.niivue_file = niivue_file
        self.is_on = can_report(report, niivue_file)

    def attach(self, engine: Engine) -> None:
        if self.is_on:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
            engine.add_event_handler(Events.COMPLETED, self.completed)

    def iteration_completed(self, engine: Engine) -> None:
        for case in cases_of(engine.state.batch):
            record = read_record(record_path(self.records.prediction(case)))
            if record is not None and not is_refused(record):  # there is none if the case failed
                figure_of(record, self.records.folder)

    def completed(self, engine: Engine) -> None:
        failures = [failure for of_rank in all_gather(getattr(engine, "failures", [])) for failure in of_rank]
        if rank() == 0:
            write_report(self.records.folder, self.report, failures, self.niivue_file)
