"""Evaluator that continues after a failed case."""

from __future__ import annotations

import atexit
import gc
import logging
import sys
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator

from ..data.datalists import FAILURE, REFUSED
from ..data.records import CaseRecords
from ..runtimes.auto import AutoRuntime
from ..utils.distributed import all_gather, rank
from ..utils.errors import one_line, root_cause
from ..utils.logs import SCAN_NAME, without_scan_warnings

__all__ = ["FaultTolerantEvaluator", "exit_status"]

logger = logging.getLogger(__name__)


class FaultTolerantEvaluator(SupervisedEvaluator):
    """``monai.engines.SupervisedEvaluator`` that continues after a failed case, for batches of one case.

    ``failures`` lists (file, reason), and ``refused`` likewise those that raised a ``RefusedError``. Arguments as in
    MONAI; the loader's dataset should be a ``FaultTolerantDataset``.
    Warnings of single scans are left out of the log: the record of a case has them as reasons for a review.
    With an empty loader MONAI's ``run`` returns at once. This one still fires the events of an epoch, because the other
    ranks wait for this one in the ``all_gather`` of their handlers.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.failures: list[tuple[str, str]] = []
        self.refused: list[tuple[str, str]] = []
        self.written: list[tuple[str, Path]] = []
        super().__init__(*args, **kwargs)

    def run(self, global_epoch: int = 1) -> None:
        if self.state.epoch_length == 0:
            for event in (Events.STARTED, Events.EPOCH_STARTED, Events.EPOCH_COMPLETED, Events.COMPLETED):
                self.fire_event(event)
        else:
            if isinstance(self.network, AutoRuntime):
                self.network.prepare()  # now, and not within the time of the first scan
            with without_scan_warnings():
                super().run(global_epoch)

    def _iteration(self, engine: SupervisedEvaluator, batchdata: dict[str, Any]) -> Any:
        engine.state.output = []
        name = self._name(batchdata)
        if FAILURE in batchdata:
            self._fail(name, batchdata[FAILURE][0], is_refused=REFUSED in batchdata)
            return []
        try:
            output = super()._iteration(engine, batchdata)
        except Exception as error:  # any error of a case is logged, and the other cases go on
            self._fail(name, root_cause(error))
            return []
        self.written += [(name, path) for path in _saved_files(engine.state.output)]
        return output

    def check_written(self) -> None:
        """Counts cases as failed if their files no longer exist or are empty."""
        for name, path in self.written:
            if not path.is_file() or path.stat().st_size == 0:
                self._fail(name, f"{path} was written, but is no longer there")
        self.written = []

    def _fail(self, name: str, reason: str, is_refused: bool = False) -> None:
        failures = self.refused if is_refused else self.failures
        reason = reason.removeprefix(f"{name}: ")  # the checks of transforms already name the file
        name = one_line(name)
        if (name, reason) not in failures:  # a case can fail alike at several levels
            logger.error(f"{name}: {'not segmented: ' if is_refused else ''}{reason}")
        failures.append((name, reason))

    @staticmethod
    def _name(batchdata: dict[str, Any]) -> str:
        image = batchdata["image"]
        if not isinstance(image, torch.Tensor):
            return str(image[0])
        return str((image.meta.get(SCAN_NAME) or image.meta["filename_or_obj"])[0])


def _saved_files(outputs: Any) -> list[Path]:
    """Files that ``SaveImaged`` wrote of a case; it stores their paths in the metadata."""
    paths = []
    for output in outputs if isinstance(outputs, list) else []:
        for value in output.values() if isinstance(output, dict) else ():
            if isinstance(value, MetaTensor) and "saved_to" in value.meta:
                paths.append(Path(value.meta["saved_to"]))
    return list(dict.fromkeys(paths))


def exit_status(evaluator: FaultTolerantEvaluator, records: CaseRecords | None = None) -> None:
    """Logs the number of cases, and ends the program with status 1 if one failed, was refused or lost its files.

    For a config's ``finalize``. Counts the cases of all ranks, so that all end with the same status.

    Args:
        evaluator: the evaluator of the run.
        records: counts the cases that were done before the run, too.

    Raises:
        SystemExit: if a case failed or was refused.
    """
    atexit.register(gc.freeze)  # Python would look through all objects as it ends, which takes more than a second
    evaluator.check_written()
    before = len(records.done) if records is not None else 0
    total = before
    failed: dict[str, list[str]] = {"failed": [], "not segmented, for the reasons above": []}
    for cases_of_rank, *failures_of_rank in all_gather(
        (evaluator.state.epoch_length or 0, evaluator.failures, evaluator.refused)
    ):
        total += cases_of_rank
        for names, failures in zip(failed.values(), failures_of_rank):
            names += [name for name, _ in failures]
    if any(failed.values()):
        for what, names in failed.items():
            if names and rank() == 0:
                logger.error(f"{len(names)} of {total} {what}: {', '.join(dict.fromkeys(names))}")
        sys.exit(1)
    logger.info(f"{total} of {total} done{f', {before} of them before this run' if before else ''}")
