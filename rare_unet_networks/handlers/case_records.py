"""An Ignite handler that records each case of an inference, and the table of all at its end."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.engines import IterationEvents

from ..data.datalists import case_id
from ..data.records import CaseRecords
from ..data.volume_table import check_volumes, collect_volumes
from ..levels import Route
from ..utils.distributed import all_gather, rank
from ..utils.tables import aligned

__all__ = ["CaseRecordSaver"]

logger = logging.getLogger(__name__)


def _volume(labels: MetaTensor, index: int) -> float:
    """Volume of a class in mm3, on sheared grids too."""
    return int((labels == index).sum()) * float(torch.linalg.det(labels.affine[:3, :3].double()).abs())


def _recorded_route(route: Route) -> dict[str, Any]:
    """What a record says about a route."""
    return {
        "reason": route.reason,
        "scale": list(route.scale),
        "spacing": None if route.spacing is None else [float(s) for s in route.spacing],
        "spatial_size": list(route.spatial_size),
        "resampled_size": list(route.resampled_size),
        "is_resampled": route.resampled_size != route.spatial_size,
    }


class CaseRecordSaver:
    """Writes a record beside each prediction, and at the end ``volumes.csv`` from the records of the folder.

    A table of this run's cases is logged at the end. A case that is done again has no record until it is done. Of
    several processes of one command the first makes and logs the tables, when all have ended.

    Args:
        records: the records of the folder of the predictions.
        class_names: names of the classes above background, in order.
    """

    def __init__(self, records: CaseRecords, class_names: Sequence[str]) -> None:
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
        self._heading = ("case", "spacing mm", "level", "seconds", *volumes)
        self._lines: list[tuple[str, ...]] = []
        check_volumes(self.records.folder)  # an error now, not at the end

    def completed(self) -> None:
        lines = [self._heading, *(line for part in all_gather(self._lines) for line in part)]
        if rank() == 0:
            self.records.folder.mkdir(parents=True, exist_ok=True)
            collect_volumes(self.records.folder)
            if len(lines) > 1:
                logger.info(f"predictions and volumes.csv are in {self.records.folder}\n{aligned(lines)}")
        all_gather(None)  # rows of cases that failed leave the table before their claims are given back
        self.records.release()

    def iteration_started(self, engine: Engine) -> None:
        # A record of before would say that a prediction is whole, which it is not if this run is cut short.
        for case in engine.state.batch.get("case", ()):
            self.records.begin(case)
        self._start = time.perf_counter()

    def forward_completed(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # the call returns before the GPU is done
        self._seconds = time.perf_counter() - self._start

    def iteration_completed(self, engine: Engine) -> None:
        for batch, output in zip(engine.state.batch, engine.state.output or []):
            pred = output["pred"]  # class indices on the file's own grid
            case = batch.get("case") or case_id(batch["image"].meta["filename_or_obj"])
            volumes = {}
            for index, name in enumerate(self.class_names, start=1):
                volumes[name] = {
                    "voxels": int((pred == index).sum()),
                    "mm3": _volume(pred, index),
                    "mm3_fine": _volume(output["pred_fine"], index) if "pred_fine" in output else None,
                }
            route = pred.meta["route"]  # the inferer notes it
            spacing = [float(s) for s in pred.pixdim]
            self.records.write(
                case,
                spacing=spacing,
                level=route.level,
                route=_recorded_route(route),
                side=pred.meta.get("side"),
                doubt=pred.meta.get("doubt"),
                review=list(pred.meta.get("review", ())),
                volumes=volumes,
                seconds=self._seconds,
            )
            cells = [volume[key] for volume in volumes.values() for key in ("mm3", "mm3_fine")]
            texts = ["" if cell is None else f"{cell:.0f}" for cell in cells]
            spacing_text = "x".join(f"{s:.4g}" for s in spacing)
            self._lines.append((case, spacing_text, str(route.level), f"{self._seconds:.2f}", *texts))
