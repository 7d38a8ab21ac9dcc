"""The files of a case's record and claim, and the content of a record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["claim_path", "read_record", "read_records", "record_path", "volume_rows"]


def record_path(prediction: Path) -> Path:
    """Returns the path of a prediction's record."""
    return prediction.with_name(prediction.name.removesuffix(".nii.gz") + ".json")


def claim_path(prediction: Path) -> Path:
    """Returns the path of the claim file of a prediction."""
    return prediction.with_name("." + prediction.name.removesuffix(".nii.gz") + ".claim")


def volume_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns a record's rows in ``volumes.csv``: one per class, in a whole head also one per side and for both.

    Unknown entries are ignored.

    Raises:
        AttributeError, ArithmeticError, KeyError, TypeError, ValueError: If the record is damaged.
    """
    spacing = "x".join(f"{float(s):.4g}" for s in record["spacing"])
    rows = []
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
                "review": "; ".join(record.get("review") or ()),
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
    """Reads the valid records of a folder, older first. Of two records of a case, on two grids, only the newer one."""
    written = []
    for path in folder.glob("*_seg.json"):
        record = None if path.name.startswith(".") else read_record(path)
        if record is not None:
            written.append((path.stat().st_mtime_ns, path.name, record))
    return list({record["case"]: record for _, _, record in sorted(written, key=lambda entry: entry[:2])}.values())
