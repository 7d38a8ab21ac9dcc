"""What a file holds: its format by its first bytes, and where its voxels lie."""

from __future__ import annotations

import math
import os
from typing import BinaryIO, NamedTuple

__all__ = ["VoxelBlock", "check_memory", "check_padding", "check_shape", "describe_content", "skip", "times"]

PADDING = 4096  # bytes; some programs fill the last block of a file with zeros
CHUNK = 1 << 17
# First bytes of other formats, to name what a file is.
BEGINNINGS = {
    b"version https://git-lfs": "a git-lfs pointer (`git lfs pull` fetches the file itself)",
    b"\x1f\x8b": "gzip",
    b"\x93NUMPY": "a NumPy array",
    b"PK\x03\x04": "a zip archive",
    b"\x80": "a pickle",
    b"NRRD": "NRRD",
    b"ObjectType": "MetaImage",
    b"NDims": "MetaImage",
    b"\x89HDF": "HDF5",
    b"<": "a web page",
}


class VoxelBlock(NamedTuple):
    """Shape of a file's voxels, and the bytes where they begin and end."""

    shape: tuple[int, ...]
    begin: int
    end: int

    def check(self, size: int) -> None:
        """Raises if a file of ``size`` bytes is shorter than its header claims."""
        if size < self.end:
            raise ValueError(
                f"the file is cut, or its header is damaged: {times(self.shape)} voxels take {self.end - self.begin} "
                f"bytes, the file holds {max(0, size - self.begin)}"
            )


def describe_content(head: bytes) -> str:
    """Names a file's format by its first bytes, for messages."""
    if not head:
        return "empty"
    if not any(head):
        return "zeros"
    if head[128:132] == b"DICM":
        return "DICOM"
    return next((words for start, words in BEGINNINGS.items() if head.startswith(start)), "no known format")


def times(shape: tuple[int, ...]) -> str:
    """Formats a shape as ``"4×5×6"``."""
    return "×".join(map(str, shape))


def skip(content: BinaryIO, end: int) -> int:
    """Reads up to a position and returns the position reached."""
    position = content.tell()
    while position < end and (chunk := content.read(min(CHUNK, end - position))):
        position += len(chunk)
    return position


def check_padding(rest: bytes) -> None:
    """Raises if a file has more after its voxels than a few zeros."""
    if len(rest) > PADDING or any(rest):
        raise ValueError("the file holds more than the voxels that its header claims: one of them is damaged")


def check_shape(shape: tuple[int, ...]) -> None:
    """Raises if a header claims no voxels."""
    if not shape or min(shape) < 1:
        raise ValueError(f"the header is damaged: it claims {times(shape)} voxels")


def check_memory(shape: tuple[int, ...]) -> None:
    """Raises if the voxels, as a few copies of 32-bit numbers, would not fit into memory."""
    needed, memory = 4 * math.prod(shape), physical_memory()
    if needed > memory // 2:
        raise ValueError(
            f"the header claims {times(shape)} voxels: {needed / 2**30:.1f} GiB, too much for the "
            f"{memory / 2**30:.1f} GiB of memory of this machine"
        )


def physical_memory() -> int:
    """Bytes of memory of this machine."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on Windows
        return 1 << 62
