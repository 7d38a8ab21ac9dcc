"""Files that are whole or not there, and digests of what they hold."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

__all__ = ["replaced_as_a_whole", "sha256"]


@contextmanager
def replaced_as_a_whole(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder, with the same suffixes, which takes the place of ``path`` at the end.

    Whenever the process dies, and however many processes write the file at once, others see the old file or a new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex[:12]}.{path.name}")  # hidden, and no other process has it
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@cache
def _sha256(path: str, *version: int) -> str:
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256(path: str | Path) -> str:
    """Digest of a file's content, in hexadecimal digits. A file that has not changed is read once in a run.

    Raises:
        OSError: when it cannot be read.
    """
    stat = os.stat(path)
    return _sha256(str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
