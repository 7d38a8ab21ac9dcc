"""Scans of several modalities: one 4-D file, or one file per modality, found by their names and put on one grid."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..utils.errors import one_line
from ..utils.switches import is_on
from .datalists import FAILURE, case_id, find_niftis, read_json, refuse_names, refuse_same_answers

__all__ = ["modality_datalist"]

logger = logging.getLogger(__name__)
# What tools that remove the skull append, and BIDS entities in which files of one patient may differ.
STRIPPED = r"([_-](bet|brain|stripped|skullstripped))+$"
ENTITIES = r"_(acq|ce|desc|rec|run|space)-[a-z0-9]+"


def _found(name: str, modalities: Mapping[str, str]) -> tuple[str, re.Match] | None:
    """The modality whose pattern matches most of a name, and that match; None where none does."""
    found = [(m, match) for m, pattern in modalities.items() if (match := re.search(pattern, name, re.IGNORECASE))]
    return max(found, key=lambda pair: len(pair[1][0]), default=None)


def modality_of(name: str, modalities: Mapping[str, str]) -> str | None:
    """The modality that a channel's name is or, by its pattern, means; None where it is none.

    Args:
        name: name of a channel, with or without capitals.
        modalities: pattern by modality, as of :py:func:`modality_datalist`.
    """
    same = next((m for m in modalities if m.lower() == name.lower()), None)
    found = _found(name, modalities)
    return same or (found[0] if found else None)


def _told(path: str | Path, modalities: Mapping[str, str]) -> tuple[str, str] | None:
    """(case, modality) by a file's name; None where no modality can be told."""
    name = re.sub(STRIPPED, "", case_id(path), flags=re.IGNORECASE)
    found = _found(name, modalities)
    if found is None:
        return None
    modality, match = found
    case = re.sub(ENTITIES, "", name[: match.start()], flags=re.IGNORECASE)
    return case or Path(path).absolute().parent.name, modality


def _item(files: Sequence[tuple[str, str]], case: str, modalities: Mapping[str, str], allow_missing: bool) -> dict:
    """Item of the files of one case, (modality, path) each; a failure where they are not one of each."""
    item: dict[str, Any] = {"image": {m: p for m, p in files}, "case": case}
    several = [m for m, n in Counter(m for m, _ in files).items() if n > 1]
    missing = [m for m in modalities if m not in item["image"]]
    if several:
        item[FAILURE] = f"more than one file of {', '.join(several)}"
    elif missing and (not allow_missing or len(missing) == len(modalities)):
        hint = "" if len(missing) == len(modalities) else " (allow_missing true segments without)"
        item[FAILURE] = f"no file of {', '.join(missing)}{hint}"
    elif missing:
        logger.warning(f"{Path(files[0][1]).parent / case}: no file of {', '.join(missing)}, segmented without")
    return item


def _fault(entry: Any) -> str | None:
    """What an entry of a JSON datalist should have been; None where it is."""
    image = entry.get("image") if isinstance(entry, Mapping) else None
    paths = list(image.values()) if isinstance(image, Mapping) else image if isinstance(image, list) else [image]
    if not image or not all(isinstance(p, str) for p in paths):
        return f"an entry of the list must have an image, a path or several, got {entry}"
    case = str(entry.get("case", "case"))
    if "/" in case or "\\" in case:
        return f"the case of an entry of the list must have no '/', got {entry}"
    if not case.strip(". "):
        return f"the case of an entry of the list must be a name, got {entry}"
    return None


def _listed(entry: Any, base: Path, modalities: Mapping[str, str], allow_missing: bool) -> dict:
    """Item of an entry of a JSON datalist."""
    if fault := _fault(entry):
        return {"image": str(base), "case": "?", FAILURE: fault}
    image = entry["image"]
    if isinstance(image, str):
        return {"image": str(base / image), "case": str(entry.get("case", case_id(image)))}
    if isinstance(image, Mapping):
        files = [(str(m), str(base / p)) for m, p in image.items()]
        case = str(entry.get("case", case_id(files[0][1])))
        unknown = [m for m, _ in files if m not in modalities]
        if unknown:
            reason = f"modalities must be of {', '.join(modalities)}, got {', '.join(unknown)}"
            return {"image": files[0][1], "case": case, FAILURE: reason}
        return _item(files, case, modalities, allow_missing)
    told = [_told(p, modalities) for p in image]
    case = str(entry.get("case", next((t[0] for t in told if t), case_id(image[0]))))
    if not all(told):
        names = ", ".join(Path(p).name for p, t in zip(image, told) if not t)
        reason = f"which modality {names} is cannot be told from the name: give paths by {', '.join(modalities)}"
        return {"image": str(base / image[0]), "case": case, FAILURE: reason}
    return _item([(t[1], str(base / p)) for t, p in zip(told, image)], case, modalities, allow_missing)


def modality_datalist(
    path: str, modalities: Mapping[str, str], allow_missing: bool | str = False, grid: str = "scan"
) -> list[dict[str, Any]]:
    """Scans to segment: a 4-D file, a folder (with its subfolders) of 4-D files or of one file per modality, or a list.

    Args:
        path: a NIfTI file; a folder; or a JSON file with a list of ``{"image": …, "case": name}``, the image a 4-D
            file, ``{modality: path}``, or a list of paths whose names tell their modalities, relative to the list.
        modalities: pattern (regular expression, without regard to case) by modality, in the network's order of
            channels. The one that matches most of a file's name tells its modality, what stands before is the case
            (without BIDS entities such as ``run-1``; where nothing does, the folder). Endings such as ``_bet`` or
            ``_brain`` are passed over.
        allow_missing: segment a case without a modality, with an empty channel, instead of refusing it.
        grid: grid of the predictions, ``"scan"`` or ``"fine"``, which their names tell.

    Returns:
        items with ``image``, a path or paths by modality, and ``case``; a case that cannot be used has the reason under
        ``FAILURE``, see :py:class:`rare_unet_networks.data.FaultTolerantDataset`.

    Raises:
        ValueError: when the path does not exist or holds no NIfTI file, or ``grid`` is another grid.
    """
    source, allow_missing = Path(str(path)), is_on(allow_missing)
    if source.suffix.lower() == ".json" and source.is_file():
        entries = read_json(source)
        if not isinstance(entries, list) or not entries:
            raise ValueError(f"input must be a list of cases, {source} holds none.")
        items = [_listed(entry, source.parent, modalities, allow_missing) for entry in entries]
    else:
        files = find_niftis(source, recursive=True)
        told = {p: _told(p, modalities) for p in files} if source.is_dir() else {}
        cases: dict[tuple[Path, str], list[tuple[str, str]]] = {}
        for p, t in told.items():
            if t:
                cases.setdefault((p.parent, t[0]), []).append((t[1], str(p)))
        items = [_item(found, case, modalities, allow_missing) for (_, case), found in cases.items()]
        items += [{"image": str(p), "case": case_id(p)} for p in files if not told.get(p)]
    refuse_names(items)
    refuse_same_answers(items, grid)
    logger.info(f"{len(items)} case(s) in {one_line(str(source))}")
    return items
