"""Ignite handler that writes a DICOM segmentation beside the label map of each case."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
from ignite.engine import Engine, Events
from monai.engines import IterationEvents

from ..data.dicom import is_dicom_file
from ..data.dicom_seg import dicom_seg_path, require_highdicom, write_dicom_seg
from ..data.records import CaseRecords
from ..data.segment_codes import read_codes, segment_of
from ..inferers.whole_head import classes_of
from ..utils.files import sha256
from ..utils.switches import is_on
from .case_records import cases_of

__all__ = ["DicomSegSaver"]


class DicomSegSaver:
    """Writes ``<case>_seg.dcm`` after the label map and before the record, for cases that are DICOM series.

    Attach it before :py:class:`CaseRecordSaver`: then a case counts as done only with its segmentation, and an old one
    is removed when the case is segmented without. A segmentation that cannot be written fails its case.

    Args:
        records: the records in the folder of the predictions.
        class_names: names of the classes above background, in order.
        codes: JSON file with the codes of the classes, see :py:func:`rare_unet_networks.data.segment_codes.read_codes`.
        dicom_seg: whether to write it.

    Raises:
        ImportError: if highdicom is not installed.
        ValueError: if ``dicom_seg`` is neither true nor false, the label maps are not on the grids of the scans, or the
            file of the codes has another form.
    """

    def __init__(
        self, records: CaseRecords, class_names: Sequence[str], codes: str, dicom_seg: bool | str = False
    ) -> None:
        self.records = records
        self.class_names = list(class_names)
        self.is_on = is_on(dicom_seg)
        if self.is_on:
            require_highdicom()
            if records.grid != "scan":
                raise ValueError(f"dicom_seg must have label maps on the grid of the scan, got --grid {records.grid}.")
        self.codes = read_codes(codes) if self.is_on else {}

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_STARTED, self.iteration_started)
        if self.is_on:
            # After the postprocessing, which the evaluator attaches to this event first. An error here fails the case.
            engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self.model_completed)

    def iteration_started(self, engine: Engine) -> None:
        for case in cases_of(engine.state.batch):
            record = self.records.read(case)
            if record is not None and (record.get("options") or {}).get("dicom_seg"):
                dicom_seg_path(self.records.prediction(case)).unlink(missing_ok=True)

    def model_completed(self, engine: Engine) -> None:
        for case, output in zip(cases_of(engine.state.batch), engine.state.output or []):
            meta = output["pred"].meta
            classes = classes_of(meta.get("head"), self.class_names)
            prediction = self.records.prediction(case)
            series = [files for files in self.records.files_by_modality(case) if is_dicom_file(Path(files[0]))]
            weights = Path(self.records.checkpoint)
            write_dicom_seg(
                dicom_seg_path(prediction),
                nib.load(prediction),
                series,
                {index: segment_of(name, meta.get("side"), self.codes) for index, name in classes.items()},
                {"weights_sha256": sha256(weights)} if weights.is_file() else {},
            )
