"""The viewer of an interactive report: NiiVue in the page, with a part of each scan and its label map.

NiiVue (https://niivue.com, BSD-2-Clause) is no part of this package. The page gets it from a file of the npm package
``@niivue/niivue``, so that it needs no network.
"""

from __future__ import annotations

import base64
import gzip
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

import nibabel as nib
import numpy as np
from monai.data import MetaTensor
from monai.transforms import SpatialCrop

from ..data.datalists import prediction_path
from ..data.record_files import label_names, recorded_files
from ..utils.colours import COLOURS, label_rgb
from ..utils.errors import root_cause
from ..utils.geometry import spacing_of
from ..utils.resampling import as_plain_tensor
from ..utils.switches import is_on
from .figures import load_scan
from .pictures import channels_on

__all__ = ["INTERACTIVE", "report_mode", "viewer_data", "viewer_part"]

logger = logging.getLogger(__name__)
INTERACTIVE = "interactive"  # value of the option report
TEMPLATE = Path(__file__).with_name("viewer.html")
PROGRAM = "niivue.umd.js"
MARGIN = 15.0  # mm around the labels
BEGIN = b"(function("  # of the program, as its bundler writes it


def report_mode(report: bool | str, niivue_file: str | Path | None = None) -> str:
    """Returns the option ``report`` as ``"false"``, ``"true"`` or ``"interactive"``.

    Raises:
        ValueError: if it is another word, or the program of an interactive report is missing.
    """
    if report != INTERACTIVE:
        return "true" if is_on(report) else "false"
    if niivue_file is None:
        raise ValueError(
            f"report interactive needs --niivue_file with {PROGRAM} of the npm package @niivue/niivue (npm install "
            f"@niivue/niivue, then node_modules/@niivue/niivue/dist/{PROGRAM})."
        )
    _program(Path(niivue_file))
    return INTERACTIVE


def _program(path: Path) -> str:
    content = path.read_bytes() if path.is_file() else b""
    if not content.startswith(BEGIN) or b"Niivue" not in content:
        raise ValueError(f"niivue_file must be {PROGRAM} of the npm package @niivue/niivue, {path} is not.")
    return content.decode("utf-8").replace("</script", "<\\/script")


def viewer_part(niivue_file: str | Path) -> str:
    """Returns the part of the page that shows a case: NiiVue, its licence, and the program that opens it."""
    colours = [label_rgb(index) for index in range(1, len(COLOURS) + 1)]
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        niivue=_program(Path(niivue_file)), colours=json.dumps(colours)
    )


def viewer_data(record: Mapping[str, Any], folder: Path) -> str:
    """Returns the scan and the label map of a case around its labels, both as base64 of a compressed NIfTI file.

    The scan is on the grid of the label map, in 8 bits; of several modalities it is the first one.

    Args:
        record: record of the case.
        folder: folder of the predictions.

    Returns:
        a JSON object with ``scan``, ``labels`` and ``names``. Empty if a file cannot be read; a warning of the log says
        why.
    """
    try:
        labels = load_scan(str(prediction_path(record["case"], record.get("grid") or "scan", folder)))
        scans = {name: load_scan(recorded_files(scan)) for name, scan in list(record["scans"].items())[:1]}
        part = _around_labels(labels)
        _, scan = next(channels_on(scans, part))
        data = {"scan": _packed(255 * scan.numpy(), part), "labels": _packed(as_plain_tensor(part)[0].numpy(), part)}
    except Exception as error:  # whatever a reader raises: a scan may have been moved since, the report goes on
        logger.warning(f"{record['case']}: no viewer in the report: {root_cause(error)}")
        return ""
    return json.dumps({**data, "names": label_names(record)}, ensure_ascii=True).replace("</", "<\\/")


def _around_labels(labels: MetaTensor) -> MetaTensor:
    """Part of a label map around its labels; all of it if there is none."""
    voxels = (as_plain_tensor(labels)[0] > 0).nonzero()
    if len(voxels) == 0:
        return labels
    margin = [math.ceil(MARGIN / s) for s in spacing_of(labels.affine, 3)]
    start = [max(0, a - m) for a, m in zip(voxels.amin(dim=0).tolist(), margin)]
    end = [min(n, b + m + 1) for b, m, n in zip(voxels.amax(dim=0).tolist(), margin, labels.shape[1:])]
    return SpatialCrop(roi_start=start, roi_end=end)(labels)


def _packed(voxels: np.ndarray, grid: MetaTensor) -> str:
    image = nib.Nifti1Image(np.round(voxels).astype(np.uint8), grid.affine.double().numpy())
    return base64.b64encode(gzip.compress(image.to_bytes(), mtime=0)).decode("ascii")
