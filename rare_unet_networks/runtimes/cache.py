"""The folders that keep exports of ``auto``: where they are, and how processes share them."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from shutil import rmtree

from ..utils.files import hidden_beside

__all__ = ["cache_folders", "put_folder", "remove_folder", "remove_leftovers", "writable_folder"]

logger = logging.getLogger(__name__)
LEFT_AFTER = 24 * 3600  # seconds; an export takes about one minute


def cache_folders(export_dir: Path) -> list[Path]:
    """Folders that may hold the exports of ``auto``, the preferred one first."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return [export_dir / "auto", user / "rare_unet_networks"]


def writable_folder(roots: Sequence[Path]) -> Path:
    """The first folder that can be written to.

    Raises:
        OSError: if there is none.
    """
    for root in roots:
        try:
            root.mkdir(parents=True, exist_ok=True)
            trial = hidden_beside(root / "trial")
            trial.mkdir()
            trial.rmdir()
            return root
        except OSError as error:
            logger.debug(f"{root} cannot be written to: {error}")
    raise OSError(f"none of the folders for its export can be written to: {', '.join(map(str, roots))}")


def remove_leftovers(root: Path) -> None:
    """Removes hidden folders that are older than a day: exports of processes that were killed."""
    for path in root.glob(".????????????.*"):
        try:
            if path.is_dir() and time.time() - path.stat().st_mtime > LEFT_AFTER:
                rmtree(path, ignore_errors=True)
        except OSError:  # another process removed it
            continue


def put_folder(temporary: Path, folder: Path) -> None:
    """Renames a folder, unless another process was faster."""
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def remove_folder(folder: Path) -> None:
    """Removes a damaged export at once, if that is possible: other processes never see a part of it."""
    hidden = hidden_beside(folder)
    try:
        folder.rename(hidden)
    except OSError:  # another process did it, or the folder cannot be written to
        return
    rmtree(hidden, ignore_errors=True)
