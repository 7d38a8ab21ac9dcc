"""Digests of the files that a prediction was made from, and how a record holds them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..utils.files import sha256

__all__ = ["digest", "digest_of", "digests", "with_digest"]


def digest_of(files: Sequence[str]) -> str:
    """Digest of one file, or of the digests of several, which does not depend on their order and names."""
    of_files = sorted(map(sha256, files))
    return of_files[0] if len(of_files) == 1 else hashlib.sha256("".join(of_files).encode()).hexdigest()


def with_digest(files: Sequence[str]) -> dict[str, Any]:
    """Returns file and digest; of a series its folder, the names in it, and one digest."""
    paths = [Path(file).absolute() for file in files]
    if len(paths) == 1:
        return {"file": str(paths[0]), "sha256": digest_of(files)}
    return {"file": str(paths[0].parent), "files": [path.name for path in paths], "sha256": digest_of(files)}


def digest(entry: Any) -> Any:
    """Returns the digest in an entry of a record. Paths do not count, because files may have been moved."""
    return entry.get("sha256") if isinstance(entry, Mapping) else None


def digests(entries: Any) -> dict[str, Any] | None:
    """Returns the digests of several entries by name; None if they are damaged."""
    return {name: digest(entry) for name, entry in entries.items()} if isinstance(entries, Mapping) else None
