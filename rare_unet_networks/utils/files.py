"""Atomic replacement of files, digests of their content, and JSON files."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["hidden_beside", "read_json", "replaced_as_a_whole", "sha256", "write_text"]


def hidden_beside(path: Path) -> Path:
    """Hidden path in the same folder that no other call returns, to be renamed to ``path`` when all of it is there."""
    return path.with_name(f".{uuid.uuid4().hex[:12]}.{path.name}")


@contextmanager
def replaced_as_a_whole(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder, with the same suffixes, and renames it to ``path`` at the end.

    Other processes always see the old or a new complete file, even if this process dies or several write at once.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = hidden_beside(path)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes or replaces a text file as a whole, see :py:func:`replaced_as_a_whole`."""
    with replaced_as_a_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@cache
def _sha256(path: str, *version: int) -> str:
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256(path: str | Path) -> str:
    """SHA-256 digest of a file's content, in hexadecimal digits. An unchanged file is read only once in a run.

    Raises:
        OSError: if it is no file or cannot be read. A pipe or a device may have no end.
    """
    info = os.stat(path)
    if not stat.S_ISREG(info.st_mode):
        raise OSError(f"{path}: expected a file")
    return _sha256(str(path), info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        ValueError: If the file is not JSON; the message names it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # JSONDecodeError or UnicodeDecodeError
        raise ValueError(f"{path} must be a JSON file: {error}") from None
    except RecursionError:
        raise ValueError(f"{path} must be a JSON file: it is nested too deeply") from None
