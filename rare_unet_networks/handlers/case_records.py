"""Ignite handler that writes a record of each segmented case, and a table of all cases at the end."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.engines import IterationEvents
from monai.utils import ensure_tuple

from ..data.datalists import REFUSED, case_id
from ..data.head_volumes import asymmetry_reason, write_label_names
from ..data.records import CaseRecords
from ..data.volume_table import check_volumes, collect_volumes
from ..inferers.whole_head import classes_of
from ..runtimes.load import runtime_in_words
from ..utils.distributed import all_gather, rank
from ..utils.logs import time_in_words
from ..utils.quality import SKULL
from ..utils.tables import aligned
from .case_entries import (
    cells,
    in_words,
    recorded_head,
    recorded_route,
    recorded_volumes,
    without_intervals_of_empty,
)

__all__ = ["CaseRecordSaver", "cases_of"]

logger = logging.getLogger(__name__)


def cases_of(batch: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> list[str]:
    """Cases of a batch, or of the list that it was decollated to; without ``case``, the names of the images' files."""
    cases: list[str] = []
    for item in [batch] if isinstance(batch, Mapping) else batch:
        names = item.get("case")
        if not names:
            image = item["image"]  # of a case that failed to load, its file or its files by modality
            if isinstance(image, Mapping):
                image = next(iter(image.values()))
            files = image.meta["filename_or_obj"] if isinstance(image, MetaTensor) else image
            names = [case_id(file) for file in ensure_tuple(files)]
        cases += ensure_tuple(names)
    return cases


class CaseRecordSaver:
    """Writes a record beside each prediction, and at the end ``volumes.csv`` from the records of the folder.

    Each case is logged in one line: as a warning with the reasons if it should be reviewed. A table at the end has all
    cases of the command, also those that were done before. If a case is segmented again, its old record is removed
    first. In a distributed run, rank 0 writes and logs the tables when all ranks are done.

    Args:
        records: the records in the folder of the predictions.
        class_names: names of the classes above background, in order.
        asymmetry_limit: difference of both sides of a whole head, in percent of their mean volume, above which it
            should be reviewed; None for no limit.

    Raises:
        ValueError: if the limit is not a positive number.
    """

    def __init__(self, records: CaseRecords, class_names: Sequence[str], asymmetry_limit: float | None = None) -> None:
        if asymmetry_limit is not None and not (isinstance(asymmetry_limit, (int, float)) and asymmetry_limit > 0):
            raise ValueError(f"asymmetry_limit must be a positive number or null, got {asymmetry_limit!r}.")
        self.asymmetry_limit = asymmetry_limit
        self.records = records
        self.class_names = list(class_names)
        self._seconds = self._start = 0.0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.started)
        engine.add_event_handler(Events.ITERATION_STARTED, self.iteration_started)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self.forward_completed)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
        engine.add_event_handler(Events.COMPLETED, self.completed)

    def started(self) -> None:
        volumes = [f"{name} mm3{grid}" for name in self.class_names for grid in ("", " (fine)")]
        self._heading = ("case", "spacing mm", "level", "seconds", *volumes, "review")
        self._lines: list[tuple[str, ...]] = []
        self._begin = time.perf_counter()
        check_volumes(self.records.folder)  # a faulty table raises now, not after the inference

    def completed(self) -> None:
        lines = [self._heading]
        if rank() == 0:
            records = filter(None, map(self.records.read, self.records.done))
            lines += [cells(record, self.class_names) for record in records]
        for lines_of_rank in all_gather(self._lines):
            lines += lines_of_rank
        if rank() == 0:
            self.records.folder.mkdir(parents=True, exist_ok=True)
            collect_volumes(self.records.folder)
            if len(lines) > 1:
                logger.info(f"predictions and volumes.csv are in {self.records.folder}\n{aligned(lines)}")
            to_review = [line[0] for line in lines[1:] if line[-1]]
            if to_review:
                logger.warning(
                    f"{len(to_review)} of {len(lines) - 1} prediction(s) should be reviewed, volumes.csv has the "
                    f"reasons: {', '.join(to_review)}"
                )
        # A barrier: the claims are given back only after rank 0 has written the table.
        all_gather(None)
        self.records.release()

    def iteration_started(self, engine: Engine) -> None:
        # If this run is interrupted, an old record would claim that a half-written prediction is complete.
        for case in cases_of(engine.state.batch):
            self.records.begin(case)
        self._start = time.perf_counter()

    def forward_completed(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # CUDA calls return before the GPU has finished
        self._seconds = time.perf_counter() - self._start

    def iteration_completed(self, engine: Engine) -> None:
        if REFUSED in engine.state.batch:  # the evaluator has logged it
            for case, refused in zip(cases_of(engine.state.batch), engine.state.batch[REFUSED]):
                self._lines.append(cells(self.records.write_refused(case, **json.loads(refused)), self.class_names))
            return
        for case, output in zip(cases_of(engine.state.batch), engine.state.output or []):
            pred = output["pred"]  # class indices on the file's own grid
            head = pred.meta.get("head")  # notes of the inferer, if it was a whole head
            volumes = recorded_volumes(pred, output.get("pred_fine"), classes_of(head, self.class_names))
            of_head = {} if head is None else recorded_head(head, volumes)
            review = [
                *pred.meta.get("review", ()),
                *asymmetry_reason(of_head.get("asymmetry"), self.asymmetry_limit),
            ]
            entries = without_intervals_of_empty(pred.meta.get("trust_entries", {}), volumes)
            route = pred.meta["route"]  # written by the inferer
            record = self.records.write(
                case,
                spacing=[float(s) for s in pred.pixdim],
                level=route.level,
                route=recorded_route(route),
                side=pred.meta.get("side"),
                side_margin=pred.meta.get("side_margin"),
                doubt=pred.meta.get("doubt"),
                **entries,
                removed=pred.meta.get("removed"),
                **({SKULL: pred.meta[SKULL]} if SKULL in pred.meta else {}),
                review=review,
                volumes=volumes,
                **of_head,
                seconds=self._seconds,
                **({"runtime": runtime_in_words(engine.network)} if hasattr(engine, "network") else {}),
            )
            if head is not None:
                write_label_names(self.records.prediction(case), head.class_names)
            self._lines.append(cells(record, self.class_names))
            level = logging.WARNING if record["review"] else logging.INFO
            logger.log(level, f"{self._position(engine)}{in_words(record)}{self._time_left(engine)}")

    def _position(self, engine: Engine) -> str:
        """Number of the scan among all scans of the command, ``"17 of 52: "``; empty if their number is unknown."""
        total = self.records.total
        return f"{total - self._remaining(engine)} of {total}: " if total else ""

    def _remaining(self, engine: Engine) -> int:
        """Scans that neither this process nor another one has begun."""
        return max(0, self.records.total - len(self.records.done) - self._handled(engine))

    def _handled(self, engine: Engine) -> int:
        return engine.state.iteration + len(self.records.left_to_others)

    def _time_left(self, engine: Engine) -> str:
        """Time for the remaining scans, if each takes as long as those before; empty after the last one."""
        remaining = self._remaining(engine)
        if not remaining:
            return ""
        per_scan = (time.perf_counter() - self._begin) / self._handled(engine)
        return f"; about {time_in_words(remaining * per_scan)} left"
