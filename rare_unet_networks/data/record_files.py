"""The files of a case's record and claim, and the content of a record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .datalists import POSTFIXES, prediction_path

__all__ = [
    "REFUSED_STATUS",
    "claim_path",
    "is_refused",
    "label_names",
    "read_record",
    "read_records",
    "record_path",
    "recorded_files",
    "volume_rows",
]

REFUSED_STATUS = "not segmented"  # entry "status" of the record of a case that was refused; others have none


def record_path(prediction: Path) -> Path:
    """Returns the path of a prediction's record."""
    return prediction.with_name(prediction.name.removesuffix(".nii.gz") + ".json")


def claim_path(prediction: Path) -> Path:
    """Returns the path of the claim file of a prediction."""
    return prediction.with_name("." + prediction.name.removesuffix(".nii.gz") + ".claim")


def is_refused(record: Mapping[str, Any]) -> bool:
    """Returns whether the case has no prediction, because it would mislead."""
    return record.get("status") == REFUSED_STATUS


def volume_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns a record's rows in ``volumes.csv``: one per class, in a whole head also one per side and for both.

    A case that was refused has one row without class. Unknown entries are ignored.

    Raises:
        AttributeError, ArithmeticError, KeyError, TypeError, ValueError: If the record is damaged.
    """
    spacing = "x".join(f"{float(s):.4g}" for s in record["spacing"])
    rows: list[dict[str, Any]] = []
    review = "; ".join(record.get("review") or ())
    if is_refused(record):
        case, grid = str(record["case"]), str(record.get("grid") or "")
        return [{"case": case, "class": "", "spacing": spacing, "grid": grid, "review": review}]
    asymmetry = record.get("asymmetry")
    for name, volume in {**record["volumes"], **record.get("totals", {})}.items():
        fine = volume.get("mm3_fine")
        rows.append(
            {
                "case": str(record["case"]),
                "class": name,
                "voxels": int(volume["voxels"]),
                "mm3": float(volume["mm3"]),
                "mm3_fine": "" if fine is None else float(fine),
                "spacing": spacing,
                "level": int(record["level"]),
                "seconds": float(record["seconds"]),
                "grid": str(record.get("grid") or ""),
                "side": str(record.get("side") or ""),
                "asymmetry": float(asymmetry) if name == "both" and asymmetry is not None else "",
                "review": review,
            }
        )
    return rows


def read_record(path: Path) -> dict[str, Any] | None:
    """Reads a record; None if it is missing or damaged."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        volume_rows(record)
    except (OSError, AttributeError, ArithmeticError, KeyError, RecursionError, TypeError, ValueError):
        return None
    return record if isinstance(record["case"], str) else None


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Reads the valid records of a folder, older first. Of two records of a case, on two grids, only the newer one.

    A record counts if it lies beside the prediction that it names: those of another run in a subfolder do not.
    """
    written = []
    for path in folder.rglob("*seg.json"):
        record = None if path.name.startswith(".") else read_record(path)
        if record is not None and _is_at(record, path, folder):
            written.append((path.stat().st_mtime_ns, path.name, record))
    return list({record["case"]: record for _, _, record in sorted(written, key=lambda entry: entry[:2])}.values())


def _is_at(record: Mapping[str, Any], path: Path, folder: Path) -> bool:
    grids = [record["grid"]] if record.get("grid") in POSTFIXES else POSTFIXES
    return any(record_path(prediction_path(record["case"], grid, folder)) == path for grid in grids)


def recorded_files(scan: Mapping[str, Any]) -> list[str]:
    """Returns the files of an entry of a record's ``scans``: one file, or those of a DICOM series."""
    names = scan.get("files")
    return [scan["file"]] if names is None else [str(Path(scan["file"]) / name) for name in names]


def label_names(record: Mapping[str, Any]) -> list[str]:
    """Returns the names of the labels 1, 2, … of a prediction, also of those that a whole head lacks."""
    labels = record.get("labels") or dict(enumerate(record["volumes"], start=1))
    return [str(name) for _, name in sorted((int(index), name) for index, name in labels.items())]
