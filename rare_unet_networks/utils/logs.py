"""Words for the log: what a scan is called, how long a run still takes, and which warnings are left out."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

__all__ = ["SCAN_NAME", "name_of", "time_in_words", "without_scan_warnings"]

SCAN_NAME = "scan_name"  # entry of the metadata of a scan that is no single file
# Loggers that warn of single scans. All of these warnings are reasons for a review, too.
SCAN_LOGGERS = (
    "rare_unet_networks.data.readers",
    "rare_unet_networks.inferers",
    "rare_unet_networks.transforms.checks",
    "rare_unet_networks.transforms.modalities",
    "rare_unet_networks.transforms.quality",
)


def name_of(meta: Mapping[str, Any]) -> str:
    """Name of a scan in messages: its file, or of a scan with a file per modality its folder and case."""
    return str(meta.get(SCAN_NAME) or meta.get("filename_or_obj", "scan"))


def time_in_words(seconds: float) -> str:
    """A duration of at least a second: ``"8 s"``, ``"3 min"``, ``"2 h 5 min"``."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _is_kept(record: logging.LogRecord) -> bool:
    return record.levelno > logging.WARNING or logging.getLogger(record.name).isEnabledFor(logging.DEBUG)


@contextmanager
def without_scan_warnings() -> Iterator[None]:
    """Leaves warnings of single scans out of the log, unless it is at DEBUG: their records have them as reasons."""
    loggers = [logging.getLogger(name) for name in SCAN_LOGGERS]
    for logger in loggers:
        logger.addFilter(_is_kept)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(_is_kept)
