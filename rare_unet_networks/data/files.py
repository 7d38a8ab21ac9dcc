"""Checks that a file is what its name says: format, size against the header, checksum."""

from __future__ import annotations

import gzip
import math
import os
import stat
import struct
import zlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from nibabel.nifti1 import data_type_codes

from .file_content import PADDING, VoxelBlock, check_memory, check_padding, check_shape, describe_content, skip
from .other_formats import FORMAT_CHECKS

__all__ = [
    "DICOM_SUFFIXES",
    "SCAN_SUFFIXES",
    "SUFFIXES",
    "check_file",
    "check_item",
    "describe_content",
    "is_dicom",
    "suffix_of",
]

SUFFIXES = (".nii.gz", ".nii")
DICOM_SUFFIXES = (".dcm", ".ima")  # files of other names may be DICOM, too
SCAN_SUFFIXES = (*SUFFIXES, *FORMAT_CHECKS)  # of files that hold a whole scan
HEADER_SIZES = {348: "NIfTI-1", 540: "NIfTI-2"}  # the first number of a header is its own size


def suffix_of(path: str | Path) -> str:
    """Returns a file name's suffix in lower case: ``.nii.gz`` or the last suffix."""
    name = Path(path).name.lower()
    return next((s for s in SUFFIXES if name.endswith(s)), Path(name).suffix)


def check_item(item: Any) -> None:
    """Checks the files of an item, a path or several, see :py:func:`check_file`."""
    if isinstance(item, str | os.PathLike):  # other programs give tensors
        check_file(item)
    elif isinstance(item, Mapping | list | tuple):
        for entry in item.values() if isinstance(item, Mapping) else item:
            check_item(entry)


def check_file(path: str | os.PathLike) -> None:
    """Raises if a scan or label is incomplete or not what its name says, before a reader opens it.

    Compressed files are read to their end to verify the checksum, but not further than the header claims, and in
    small chunks.

    Args:
        path: a file.

    Raises:
        ValueError: If no reader supports the format, the content has another format than the name says, the size does
            not match the header, the file is damaged, or its voxels would not fit into memory. The message names it.
        FileNotFoundError: If there is no such file.
    """
    try:
        info = os.stat(path)
        if not stat.S_ISREG(info.st_mode):
            raise ValueError("expected a file, got " + ("a folder" if stat.S_ISDIR(info.st_mode) else "a device"))
        # A file is checked once, however often it is loaded.
        _check_content(os.fspath(path), info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: there is no such file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: the file is damaged or cut: {_reason(error)}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, EOFError):
        return "its compressed data end too early"
    if any(words in str(error) for words in ("CRC", "length", "data check")):
        return "its content has another checksum than was stored with it"
    return "its compressed data cannot be read"


@lru_cache(maxsize=65536)
def _check_content(path: str, size: int, *version: int) -> None:
    suffix = suffix_of(path)
    with open(path, "rb") as file:
        head = file.read(132)
        file.seek(0)
        if suffix in FORMAT_CHECKS:
            FORMAT_CHECKS[suffix](file)
            return
        if suffix not in SUFFIXES:
            _check_dicom(head, suffix)
            return
        if suffix == ".nii":
            header = _read_header(file, suffix)
            header.check(size)
            file.seek(header.end)
            check_padding(file.read(PADDING + 1))
            return
        if not head.startswith(b"\x1f\x8b"):
            raise ValueError(f"the name says {suffix}, the content is not a gzip file but {describe_content(head)}")
        with gzip.GzipFile(fileobj=file) as content:
            header = _read_header(content, suffix)
            content.seek(0)
            header.check(skip(content, header.end))
            check_padding(content.read(PADDING + 1))


def _check_dicom(head: bytes, suffix: str) -> None:
    """Checks the beginning of a DICOM file. Its voxels are checked when its series is read, which is of many files."""
    if is_dicom(head):
        return
    if suffix in DICOM_SUFFIXES:
        raise ValueError(f"the name says {suffix}, the content is not DICOM but {describe_content(head)}")
    known = ", ".join((*SCAN_SUFFIXES, *DICOM_SUFFIXES))
    raise ValueError(f"no reader is declared for {suffix or 'files without suffix'} ({known} are)")


def is_dicom(head: bytes) -> bool:
    """Whether a file that begins so is DICOM."""
    return head[128:132] == b"DICM"


def _read_header(file: BinaryIO, suffix: str) -> VoxelBlock:
    head = file.read(540)
    size = next((n for n in HEADER_SIZES for order in "<>" if head[:4] == struct.pack(f"{order}i", n)), None)
    magic = {348: head[344:348] == b"n+1\0", 540: head[4:8] == b"n+2\0"}.get(size, False)
    if not magic or len(head) < size:
        pair = head[344:348] == b"ni1\0" or head[4:8] == b"ni2\0"
        what = "the header of a pair of files (.hdr, .img)" if pair else describe_content(head)
        raise ValueError(f"the name says {suffix}, the content is not NIfTI but {what}")
    order = "<" if head[:4] == struct.pack("<i", size) else ">"
    if size == 348:
        sizes = struct.unpack_from(f"{order}8h", head, 40)
        (code,) = struct.unpack_from(f"{order}h", head, 70)
        (begin,) = struct.unpack_from(f"{order}f", head, 108)
    else:
        sizes = struct.unpack_from(f"{order}8q", head, 16)
        (code,) = struct.unpack_from(f"{order}h", head, 12)
        (begin,) = struct.unpack_from(f"{order}q", head, 168)
    return _checked_header(sizes, code, begin, size)


def _checked_header(sizes: tuple[int, ...], code: int, begin: float, size: int) -> VoxelBlock:
    """Validates the fields of a header.

    Args:
        sizes: number of axes, then the voxels on each.
        code: NIfTI's number of the type of a voxel.
        begin: byte where the voxels begin.
        size: bytes of the header.
    """
    if not 1 <= sizes[0] <= 7:
        raise ValueError(f"the header is damaged: it claims {sizes[0]} axes")
    shape = sizes[1 : 1 + sizes[0]]
    check_shape(shape)
    if code not in data_type_codes.dtype or data_type_codes.dtype[code].kind not in "iuf":
        kind = f" ({data_type_codes.label[code]})" if code in data_type_codes.dtype else ""
        raise ValueError(f"voxels must be real numbers, the header says type {code}{kind}")
    if not (math.isfinite(begin) and begin >= size + 4 and begin == int(begin)):
        raise ValueError(f"the header is damaged: it says that the voxels begin at byte {begin:g}")
    check_memory(shape)
    count = math.prod(shape) * data_type_codes.dtype[code].itemsize
    return VoxelBlock(shape, int(begin), int(begin) + count)
