"""Makes scans that are odd, wrong or damaged, each from a seed and its number alone.

A case is a small scan with random size, spacing, orientation, type and format, and up to two changes of one of the
groups below: of the voxels, of the header, of the bytes of the file, or of its name.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import nibabel as nib
import numpy as np

Random = np.random.Generator

# Offset and format of each field of a NIfTI-1 header (nifti1.h) that is changed here.
FIELDS = {
    "sizeof_hdr": (0, "i"), "dim_info": (39, "B"), "intent_code": (68, "h"), "datatype": (70, "h"), "bitpix": (72, "h"),
    "slice_start": (74, "h"), "vox_offset": (108, "f"), "scl_slope": (112, "f"), "scl_inter": (116, "f"),
    "slice_code": (122, "b"), "xyzt_units": (123, "b"), "cal_max": (124, "f"), "qform_code": (252, "h"),
    "sform_code": (254, "h"), **{f"dim{i}": (40 + 2 * i, "h") for i in range(8)},
    **{f"pixdim{i}": (76 + 4 * i, "f") for i in range(8)}, **{f"quatern{i}": (256 + 4 * i, "f") for i in range(3)},
    **{f"qoffset{i}": (268 + 4 * i, "f") for i in range(3)}, **{f"srow{i}": (280 + 4 * i, "f") for i in range(12)},
}  # fmt: skip
ODD = {
    "h": [0, 1, 2, 3, 4, 5, 7, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1792, 2048, 2304, 5000, 32767, -1, -32768],
    "f": [0, -0.0, 1, -1, 0.5, 2, 3, 10, 1e-6, 1e-30, 1000, 1e6, 1e30, -5, 90, np.nan, np.inf, -np.inf],
    "i": [0, 1, 347, 349, 540, -1, 2**31 - 1],
    "b": [0, 1, 2, 3, 4, 7, 8, 10, 27, 64, -1, -128],
    "B": [0, 1, 57, 255],
}
TYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"]
NAMES = [
    "a b", " ", "ä", "患者", "=1+1", "-x", "$x", "@x", "%x", "#", "a'b\"c", "`x`", "😀", "x.nii", "a;b", "*", "[a]",
    "x,y", "\\", "a\nb", "\x1b[31m", "\udce9", "\u202ex", "e\u0301", "..", "CON", "true", "1e3", "{x}", 200 * "n",
    240 * "n",
]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A file to be written.

    Attributes:
        name: its name with suffix; may hold characters that are not UTF-8, as surrogates.
        content: its bytes.
        changes: what was done to a plain scan, in words.
        is_gzip: whether the content is compressed and was changed after that.
        before: the content before bytes were changed, uncompressed.
    """

    name: str
    content: bytes
    changes: list[str] = field(default_factory=list)
    is_gzip: bool = False
    before: bytes = b""


def blob(shape: tuple[int, ...], random: Random) -> np.ndarray:
    """An image of two blobs, a gradient and some noise, of values 0 to 100; no two axes or directions look alike."""
    grids = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    image = sum((i + 1) * g for i, g in enumerate(grids))
    for center, width in ((-0.3, 0.2), (0.4, 0.05)):
        image = image + 8 * np.exp(-sum((g - center * (i + 1) / 3) ** 2 for i, g in enumerate(grids)) / width)
    image = image + 0.2 * random.standard_normal(shape)
    return 100 * (image - image.min()) / np.ptp(image)


def plain_affine(random: Random, spacing: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """An affine in any of the 48 axis orders, half of the time turned by up to 15 degrees about each axis."""
    rotation = np.eye(3)[random.permutation(3)] * random.choice([-1, 1], 3)
    if random.random() < 0.5:
        rotation = nib.eulerangles.euler2mat(*random.uniform(-0.25, 0.25, 3)) @ rotation
    return nib.affines.from_matvec(rotation @ np.diag(spacing), random.uniform(-80, 80, 3))


def plain(random: Random) -> nib.Nifti1Image:
    """A scan without any fault."""
    shape = tuple(int(n) for n in random.integers(12, 20, 3))
    spacing = random.choice([1.0, 1.2, 2.0, 3.0]) * np.where(random.random(3) < 0.2, 1.3, 1.0)  # below 80 mm in all
    kind = random.choice(TYPES)
    order = ">" if random.random() < 0.15 else "<"
    image = nib.Nifti1Image(blob(shape, random).astype(order + kind), plain_affine(random, spacing, shape))
    image = nib.Nifti1Image(image.dataobj, image.affine, nib.Nifti1Header(endianness=order))
    image.set_data_dtype(order + kind)
    codes = [(1, 1), (1, 0), (0, 1), (2, 2)][random.integers(4)]  # sform, qform
    image.set_sform(image.affine if codes[0] else None, code=codes[0])
    image.set_qform(image.affine if codes[0] == 0 or codes[1] else None, code=codes[1])
    image.header.set_xyzt_units("mm")
    return image


def change_voxels(image: nib.Nifti1Image, random: Random) -> tuple[nib.Nifti1Image, str]:
    """Other voxels, or another number of axes."""
    data = np.asarray(image.dataobj).astype(np.float64)
    somewhere = tuple(random.integers(0, data.shape))
    kinds: dict[str, Callable[[], np.ndarray]] = {
        "constant": lambda: np.full_like(data, 7),
        "zeros": lambda: np.zeros_like(data),
        "one voxel": lambda: np.where(np.arange(data.size).reshape(data.shape) == 77, 1.0, 0.0),
        "NaN": lambda: _with(data, somewhere, np.nan),
        "infinite": lambda: _with(data, somewhere, np.inf),
        "huge": lambda: _with(data, somewhere, 1e38),
        "times 1e-30": lambda: data * 1e-30,
        "times 1e30": lambda: data * 1e30,
        "negative": lambda: -data,
        "four axes of one volume": lambda: data[..., None],
        "four axes": lambda: np.stack([data, data], -1),
        "five axes": lambda: data[..., None, None],
        "two axes": lambda: data[:, :, 3],
        "one slice": lambda: data[:, :, 3:4],
        "one voxel thick": lambda: data[3:4, :, 3:4],
        "a single voxel": lambda: data[3:4, 3:4, 3:4],
        "noise": lambda: random.standard_normal(data.shape),
        "binary": lambda: (data > 50).astype(float),
    }
    kind = str(random.choice(list(kinds)))
    changed = nib.Nifti1Image(kinds[kind]().astype(np.float32), image.affine, image.header)
    changed.set_data_dtype(random.choice(["f4", "f8"]))
    return changed, kind


def _with(data: np.ndarray, index: tuple[int, ...], value: float) -> np.ndarray:
    data = data.copy()
    data[index] = value
    return data


def change_header(content: bytes, random: Random) -> tuple[bytes, str]:
    """One field of the header, to a value that is odd for its type."""
    groups = [[name for name in FIELDS if name.startswith(group)] for group in ("dim", "pixdim", "qu", "srow", "q")]
    groups += [["sform_code"], ["qform_code"], ["xyzt_units"], ["vox_offset"], ["scl_slope"], list(FIELDS)]
    names = groups[random.integers(len(groups))]
    name = str(random.choice(names))
    offset, kind = FIELDS[name]
    order = "<" if content[:4] == struct.pack("<i", 348) else ">"
    (old,) = struct.unpack_from(order + kind, content, offset)
    value = ODD[kind][random.integers(len(ODD[kind]))]
    if random.random() < 0.3:  # a value that looks right
        value = {"f": random.choice([-old, old * 1.1, old * 3]), "h": old + 1}.get(kind, value)
    header = bytearray(content)
    struct.pack_into(order + kind, header, offset, np.clip(value, -32768, 32767) if kind == "h" else value)
    return bytes(header), f"{name} {old:g} -> {value:g}"


def change_bytes(content: bytes, random: Random) -> tuple[bytes, str]:
    """Damage as of a bad disk or an interrupted copy."""
    n, kind = len(content), random.integers(10)
    place = int(random.integers(n)) if random.random() < 0.6 else int(random.integers(min(n, 400)))
    data = bytearray(content)
    if kind <= 2:
        data[place] ^= 1 << int(random.integers(8))
        return bytes(data), f"bit of byte {place} flipped"
    if kind == 3:
        return content[:place], f"cut at byte {place}"
    if kind == 4:
        return content + random.bytes(int(random.integers(1, 2000))), "junk at the end"
    if kind == 5:
        return content + bytes(int(random.integers(1, 6000))), "zeros at the end"
    if kind == 6:
        end = min(n, place + int(random.integers(1, 512)))
        return content[:place] + bytes(end - place) + content[end:], f"bytes {place} to {end} are 0"
    if kind == 7:
        return content[:place] + content[place + 1 :], f"byte {place} is lost"
    if kind == 8:
        return content[:place] + content, f"the first {place} bytes twice"
    beginnings = [b"", b"\x1f\x8b", b"version https://git-lfs.github.com/spec/v1\n", b"<html>", b"PK\x03\x04", bytes(9)]
    return beginnings[random.integers(len(beginnings))] + random.bytes(int(random.integers(600))), "another content"


def make(seed: int, number: int) -> Case:
    """Makes a case; the same for the same two numbers, on every machine with the same numpy."""
    random = np.random.default_rng([seed, number])
    image, changes = plain(random), []
    group = random.choice(["none", "voxels", "header", "bytes", "name"], p=[0.08, 0.17, 0.45, 0.22, 0.08])
    if group == "voxels":
        image, change = change_voxels(image, random)
        changes.append(change)
    content = image.to_bytes()
    if group == "header":
        for _ in range(random.integers(1, 3)):
            content, change = change_header(content, random)
            changes.append(change)
    suffix, before = str(random.choice([".nii", ".nii.gz"])), content
    name, is_gzip = f"case{number:04d}", suffix == ".nii.gz"
    if is_gzip:
        content = gzip.compress(content, 1, mtime=0)
    if group == "bytes":
        content, change = change_bytes(content, random)
        changes.append(change)
    if group == "name":
        odd = NAMES[random.integers(len(NAMES))]
        name = f"{odd}{name}" if random.random() < 0.5 and odd[0] != "." else f"{name}{odd}"  # not a hidden file
        if random.random() < 0.3:
            suffix = {".nii": ".nii.gz", ".nii.gz": ".NII.GZ"}[suffix]  # capitals, or a name that does not fit
        changes.append(f"named {name!r}{suffix}")
    return Case(name.replace("/", "") + suffix, content, changes, is_gzip, before)


def good(number: int) -> Case:
    """A scan without any fault, and with a plain name."""
    random = np.random.default_rng([1, number])
    content = gzip.compress(plain(random).to_bytes(), 1, mtime=0)
    return replace(Case(f"good{number}.nii.gz", content), is_gzip=True)
