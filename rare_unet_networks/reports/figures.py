"""The picture of a case: ``figures/<case>_seg.svg``, drawn from the scan and the prediction as they are on disk."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.data import MetaTensor
from monai.transforms import LoadImage

from ..data.datalists import prediction_path
from ..data.record_files import label_names, recorded_files
from ..data.scan_reader import ScanReader
from ..utils.errors import root_cause
from ..utils.files import write_text
from .pictures import draw_picture

__all__ = ["figure_of", "figure_path", "load_scan"]

logger = logging.getLogger(__name__)
FIGURES = "figures"


def figure_path(prediction: Path, folder: Path) -> Path:
    """Returns the picture of a prediction in ``folder``."""
    name = prediction.relative_to(folder)
    return folder / FIGURES / name.with_name(name.name.removesuffix(".nii.gz") + ".svg")


def figure_of(record: Mapping[str, Any], folder: Path) -> str:
    """Returns the picture of a case, and draws it if it is missing or older than the prediction.

    Args:
        record: its record.
        folder: folder of the predictions.

    Returns:
        an SVG document. It is empty if the picture cannot be drawn; a warning of the log says why.
    """
    prediction = prediction_path(record["case"], record.get("grid") or "scan", folder)
    figure = figure_path(prediction, folder)
    try:
        if not figure.exists() or figure.stat().st_mtime_ns < prediction.stat().st_mtime_ns:
            write_text(figure, _draw(record, prediction))
        return figure.read_text(encoding="utf-8")
    except Exception as error:  # whatever a reader raises: a scan may have been moved since, the report goes on
        logger.warning(f"{record['case']}: no picture in the report: {root_cause(error)}")
        return ""


def _draw(record: Mapping[str, Any], prediction: Path) -> str:
    scans = {name: load_scan(recorded_files(scan)) for name, scan in record["scans"].items()}
    return draw_picture(scans, load_scan(str(prediction)), label_names(record))


def load_scan(path: str | list[str]) -> MetaTensor:
    """Loads a scan or a label map without warnings, channel first."""
    return LoadImage(ScanReader(warn=False), ensure_channel_first=True)(path)
