"""Ignite handler that writes a record of each segmented case, and a table of all cases at the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.engines import IterationEvents
from monai.utils import ensure_tuple

from ..data.datalists import case_id
from ..data.head_volumes import asymmetry, side_totals, write_label_names
from ..data.records import CaseRecords
from ..data.volume_table import check_volumes, collect_volumes
from ..inferers.whole_head import HeadNotes
from ..levels import Route
from ..utils.distributed import all_gather, rank
from ..utils.tables import aligned

__all__ = ["CaseRecordSaver"]

logger = logging.getLogger(__name__)


def _cases(batch: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> list[str]:
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


def _volume(labels: MetaTensor, index: int) -> float:
    """Volume of a class in mm3; the determinant makes it right on sheared grids too."""
    return int((labels == index).sum()) * float(torch.linalg.det(labels.affine[:3, :3].double()).abs())


def _recorded_route(route: Route) -> dict[str, Any]:
    """Entries of a record about a route."""
    return {
        "reason": route.reason,
        "scale": list(route.scale),
        "spacing": None if route.spacing is None else [float(s) for s in route.spacing],
        "spatial_size": list(route.spatial_size),
        "resampled_size": list(route.resampled_size),
        "is_resampled": route.resampled_size != route.spatial_size,
    }


def _recorded_head(head: HeadNotes, volumes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Entries of a record about a whole head, beside those of a crop."""
    totals = side_totals(volumes, head.sides)
    return {
        "totals": totals,
        "asymmetry": asymmetry(totals),
        "labels": {str(index): name for index, name in enumerate(head.class_names, start=1)},
        "head": {
            "sides": head.sides,
            "turned": head.turned,
            "centres": head.centres,
            "confidence": head.confidence,
        },
    }


class CaseRecordSaver:
    """Writes a record beside each prediction, and at the end ``volumes.csv`` from the records of the folder.

    A table of this run's cases is logged at the end. If a case is segmented again, its old record is removed first. In
    a distributed run, rank 0 writes and logs the tables when all ranks are done.

    Args:
        records: the records in the folder of the predictions.
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
        self._heading = ("case", "spacing mm", "level", "seconds", *volumes, "review")
        self._lines: list[tuple[str, ...]] = []
        check_volumes(self.records.folder)  # a faulty table raises now, not after the inference

    def completed(self) -> None:
        lines = [self._heading]
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
        for case in _cases(engine.state.batch):
            self.records.begin(case)
        self._start = time.perf_counter()

    def forward_completed(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # CUDA calls return before the GPU has finished
        self._seconds = time.perf_counter() - self._start

    def iteration_completed(self, engine: Engine) -> None:
        for case, output in zip(_cases(engine.state.batch), engine.state.output or []):
            pred = output["pred"]  # class indices on the file's own grid
            head = pred.meta.get("head")  # notes of the inferer, if it was a whole head
            classes = dict(enumerate(self.class_names, start=1)) if head is None else head.classes()
            volumes = {}
            for index, name in classes.items():
                volumes[name] = {
                    "voxels": int((pred == index).sum()),
                    "mm3": _volume(pred, index),
                    "mm3_fine": _volume(output["pred_fine"], index) if "pred_fine" in output else None,
                }
            route = pred.meta["route"]  # written by the inferer
            spacing = [float(s) for s in pred.pixdim]
            self.records.write(
                case,
                spacing=spacing,
                level=route.level,
                route=_recorded_route(route),
                side=pred.meta.get("side"),
                doubt=pred.meta.get("doubt"),
                **pred.meta.get("trust_entries", {}),
                review=list(pred.meta.get("review", ())),
                volumes=volumes,
                **({} if head is None else _recorded_head(head, volumes)),
                seconds=self._seconds,
            )
            if head is not None:
                write_label_names(self.records.prediction(case), head.class_names)
            texts = []
            for name in self.class_names:
                # In a whole head the volumes of both sides share a column.
                of_class = [v for n, v in volumes.items() if n == name or (head is not None and n.endswith(f" {name}"))]
                for key in ("mm3", "mm3_fine"):
                    texts.append("+".join("" if v[key] is None else f"{v[key]:.0f}" for v in of_class).strip("+"))
            to_review = "yes" if pred.meta.get("review") else ""
            spacing_text = "x".join(f"{s:.4g}" for s in spacing)
            self._lines.append((case, spacing_text, str(route.level), f"{self._seconds:.2f}", *texts, to_review))
