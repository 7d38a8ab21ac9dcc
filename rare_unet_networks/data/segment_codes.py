"""The codes of a task's classes in a DICOM segmentation, read from a JSON file of the bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..utils.files import read_json

__all__ = ["LATERALITY", "Code", "Segment", "read_codes", "segment_of"]

Code = tuple[str, str, str]  # value, coding scheme, meaning: the order of pydicom's and highdicom's codes
LATERALITY: dict[str, Code] = {"left": ("7771000", "SCT", "Left"), "right": ("24028007", "SCT", "Right")}
# DICOM reserves schemes that begin with 99 for private codes: of classes that the bundle's file does not have.
PRIVATE = "99RAREUNET"
ANATOMY: Code = ("91723000", "SCT", "Anatomical Structure")
ENTRIES = ("category", "type", "modifiers", "region")


@dataclass(frozen=True)
class Segment:
    """A class in a DICOM segmentation.

    Attributes:
        label: its name.
        category: what kind of thing it is, such as an anatomical structure.
        type: what it is.
        modifiers: of the type: side, and part of the structure.
        region: where it is, if the type does not say it.
    """

    label: str
    category: Code
    type: Code
    modifiers: tuple[Code, ...] = ()
    region: Code | None = None


def _code(value: Any, path: Path, name: str) -> Code:
    if not isinstance(value, list) or len(value) != 3 or not all(isinstance(part, str) and part for part in value):
        raise ValueError(f"{path}: expected [value, scheme, meaning] as a code of {name}, got {value!r}.")
    return tuple(value)


def read_codes(path: str | Path) -> dict[str, dict[str, Any]]:
    """Reads the codes of a bundle's classes: an object by class, with ``category``, ``type`` and more.

    ``modifiers`` (a list of codes) and ``region`` can be left out. A code is a list of its value, the scheme (``"SCT"``
    is SNOMED CT) and its meaning.

    Returns:
        codes by entry and class; none if there is no such file.

    Raises:
        ValueError: if the file has another form.
    """
    path = Path(path)
    if not path.is_file():
        return {}
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected an object with the codes by class, got a {type(content).__name__}.")
    codes: dict[str, dict[str, Any]] = {}
    for name, entries in content.items():
        names = set(entries) if isinstance(entries, dict) else set()
        if not {"category", "type"} <= names or not names <= set(ENTRIES):
            raise ValueError(f"{path}: expected category, type and no more than {ENTRIES} for {name}, got {entries!r}.")
        modifiers = entries.get("modifiers", [])
        if not isinstance(modifiers, list):
            raise ValueError(f"{path}: expected a list of codes as modifiers of {name}, got {modifiers!r}.")
        codes[name] = {key: _code(entries[key], path, name) for key in names - {"modifiers"}}
        codes[name]["modifiers"] = tuple(_code(modifier, path, name) for modifier in modifiers)
    return codes


def segment_of(name: str, side: str | None, codes: dict[str, dict[str, Any]]) -> Segment:
    """Returns the segment of a class.

    Args:
        name: name of the class; in a whole head it begins with the side.
        side: the side of a crop, ``"left"`` or ``"right"``; None if there is none.
        codes: see :py:func:`read_codes`. A class that is missing there gets a private code.
    """
    words = name.split()
    if len(words) > 1 and words[0] in LATERALITY:
        side, name = words[0], " ".join(words[1:])
    laterality = (LATERALITY[side],) if side in LATERALITY else ()
    label = f"{side} {name}" if laterality else name
    entries = codes.get(name)
    if entries is None:
        return Segment(label, ANATOMY, (name[:16], PRIVATE, name[:64]), laterality)
    return Segment(
        label, entries["category"], entries["type"], (*laterality, *entries["modifiers"]), entries.get("region")
    )
