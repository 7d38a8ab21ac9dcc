"""Checks of MGH, NRRD and MetaImage files: size against the header, checksum."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import BinaryIO

from .file_content import (
    CHUNK,
    PADDING,
    VoxelBlock,
    check_memory,
    check_padding,
    check_shape,
    describe_content,
    skip,
    times,
)

__all__ = ["FORMAT_CHECKS", "metaimage_fields"]

MGH_HEADER = 284  # bytes
MGH_TAGS = 1 << 24  # most bytes after the voxels
MGH_TYPES = {0: 1, 1: 4, 3: 4, 4: 2, 10: 2}  # bytes of a voxel by type: uchar, int, float, short, ushort
MORE = "the file holds more than the voxels that its header claims: one of them is damaged"
MAX_LINES = 2000  # of a text header
# Bytes of a voxel by type: of NRRD (its other names are mapped to these), and of MetaImage.
NRRD_TYPES = {"char": 1, "int8": 1, "short": 2, "int16": 2, "int": 4, "int32": 4, "longlong": 8, "int64": 8}
NRRD_TYPES |= {"float": 4, "double": 8}
META_TYPES = {"CHAR": 1, "SHORT": 2, "INT": 4, "LONG": 4, "LONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}


def _check_mgh(file: BinaryIO) -> None:
    if file.read(2) == b"\x1f\x8b":
        file.seek(0)
        with gzip.GzipFile(fileobj=file) as content:
            block = _mgh_block(content.read(MGH_HEADER))
            block.check(skip(content, block.end))
            # Scan parameters and other tags may follow. Their end has the checksum of the file.
            if skip(content, block.end + MGH_TAGS) >= block.end + MGH_TAGS:
                raise ValueError(MORE)
        return
    file.seek(0)
    block = _mgh_block(file.read(MGH_HEADER))
    block.check(file.seek(0, 2))


def _mgh_block(head: bytes) -> VoxelBlock:
    if len(head) < MGH_HEADER or struct.unpack_from(">i", head)[0] != 1:
        raise ValueError(f"the content is not an MGH image but {describe_content(head)}")
    *shape, kind = struct.unpack_from(">5i", head, 4)
    if kind not in MGH_TYPES:
        raise ValueError(f"voxels must be real numbers, the header says type {kind}")
    shape = tuple(shape)
    check_shape(shape)
    check_memory(shape)
    return VoxelBlock(shape, MGH_HEADER, MGH_HEADER + math.prod(shape) * MGH_TYPES[kind])


def _check_mgz(file: BinaryIO) -> None:
    _check_beginning(file, ".mgz", "a gzip file", (b"\x1f\x8b",))
    _check_mgh(file)


def _check_beginning(file: BinaryIO, suffix: str, format_name: str, beginnings: tuple[bytes, ...]) -> None:
    """Raises if a file does not begin as files of its suffix do, and goes back to its begin."""
    head = file.read(132)
    file.seek(0)
    if not head.startswith(beginnings):
        raise ValueError(f"the name says {suffix}, the content is not {format_name} but {describe_content(head)}")


def _check_nrrd(file: BinaryIO) -> None:
    _check_beginning(file, ".nrrd", "NRRD", (b"NRRD",))
    fields = _fields(file, ":", end=lambda key, _: not key)
    if "data file" in fields or "datafile" in fields:
        raise ValueError("its voxels are in another file: save header and voxels in one file")
    kind = fields.get("type", "").removeprefix("unsigned ").removeprefix("signed ").removeprefix("u").removesuffix("_t")
    kind = {"long long": "longlong", "long long int": "longlong", "short int": "short", "uchar": "char"}.get(kind, kind)
    shape = _integers(fields.get("sizes", ""), "sizes")
    if str(len(shape)) != fields.get("dimension"):
        raise ValueError(f"the header is damaged: dimension {fields.get('dimension')}, sizes {times(shape)}")
    encoding = fields.get("encoding", "")
    if encoding in ("gzip", "gz"):
        _check_stream(file, shape, _bytes_of(kind, NRRD_TYPES, "type"), zlib.MAX_WBITS | 16)
    elif encoding == "raw" and {"byte skip", "byteskip", "line skip", "lineskip"}.isdisjoint(fields):
        _check_rest(file, shape, _bytes_of(kind, NRRD_TYPES, "type"))
    else:
        raise ValueError(f"encoding must be raw or gzip, without skipped bytes, the header says {encoding!r}")


def metaimage_fields(file: BinaryIO) -> dict[str, str]:
    """Reads the header of a MetaImage; keys and values are in small letters."""
    _check_beginning(file, ".mha", "a MetaImage", (b"ObjectType", b"NDims", b"Comment"))
    return _fields(file, "=", end=lambda key, _: key == "elementdatafile")


def _check_metaimage(file: BinaryIO) -> None:
    fields = metaimage_fields(file)
    if fields.get("elementdatafile") != "local":
        raise ValueError("its voxels are in another file: save header and voxels in one file")
    shape = _integers(fields.get("dimsize", ""), "DimSize")
    channels = int(fields.get("elementnumberofchannels", "1"))
    kind = fields.get("elementtype", "").upper().removeprefix("MET_").removeprefix("U")
    count = channels * _bytes_of(kind, META_TYPES, "ElementType")
    if fields.get("compresseddata") == "true":
        _check_stream(file, shape, count, zlib.MAX_WBITS)
    else:
        _check_rest(file, shape, count)


def _fields(file: BinaryIO, separator: str, end: Callable[[str, str], bool]) -> dict[str, str]:
    """Reads the lines of a text header, in small letters, up to the one for which ``end(key, value)`` is true."""
    fields: dict[str, str] = {}
    for _ in range(MAX_LINES):
        line = file.readline(CHUNK)
        if not line:
            break
        key, _, value = (part.strip().lower() for part in line.decode("utf-8", "replace").partition(separator))
        if not line.startswith(b"#"):
            fields[key] = value
            if end(key, value):
                return fields
    raise ValueError("the header is damaged: it has no end")


def _integers(text: str, name: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(word) for word in text.split())
    except ValueError:
        raise ValueError(f"the header is damaged: {name} must be numbers, got {text!r}") from None
    check_shape(shape)
    check_memory(shape)
    return shape


def _bytes_of(kind: str, sizes: Mapping[str, int], name: str) -> int:
    if kind not in sizes:
        raise ValueError(f"voxels must be real numbers, the header says {name} {kind!r}")
    return sizes[kind]


def _check_rest(file: BinaryIO, shape: tuple[int, ...], count: int) -> None:
    begin = file.tell()
    block = VoxelBlock(shape, begin, begin + math.prod(shape) * count)
    block.check(file.seek(0, 2))
    file.seek(block.end)
    check_padding(file.read(PADDING + 1))


def _check_stream(file: BinaryIO, shape: tuple[int, ...], count: int, wbits: int) -> None:
    """Decompresses the voxels to their end, where the checksum is, but not further than the header claims."""
    block = VoxelBlock(shape, 0, math.prod(shape) * count)
    decoder, size = zlib.decompressobj(wbits), 0
    while size <= block.end and not decoder.eof and (chunk := decoder.unconsumed_tail or file.read(CHUNK)):
        size += len(decoder.decompress(chunk, CHUNK))
    size += len(decoder.flush())
    if size > block.end:
        raise ValueError(MORE)
    if not decoder.eof:
        raise EOFError
    block.check(size)


# By the suffix of a name. Each takes an open file and raises a ValueError with the reason.
FORMAT_CHECKS = {".mgz": _check_mgz, ".mgh": _check_mgh, ".nrrd": _check_nrrd, ".mha": _check_metaimage}
