"""Lists of scans with several modalities: one 4-D file, or one file per modality, recognised by its name."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..utils.errors import one_line
from ..utils.files import read_json
from ..utils.switches import is_on
from .datalists import FAILURE, case_id, existing_source, place_of, refuse_empty, refuse_names, refuse_shared_paths
from .dicom import files_of_scan
from .folders import find_scans
from .studies import files_by_folder, modalities_by_words, series_by_study

__all__ = ["case_item", "modality_datalist"]

logger = logging.getLogger(__name__)
# Suffixes of skull-stripping tools, and BIDS entities in which files of one case may differ.
STRIPPED = r"([_-](bet|brain|stripped|skullstripped))+$"
ENTITIES = r"_(acq|ce|desc|rec|run|space)-[a-z0-9]+"


def _longest_match(name: str, modalities: Mapping[str, str]) -> tuple[str, re.Match] | None:
    """Returns the modality whose pattern matches the most characters of a name, and the match; None without one."""
    matches = []
    for modality, pattern in modalities.items():
        match = re.search(pattern, name, re.IGNORECASE)
        if match:
            matches.append((modality, match))
    return max(matches, key=lambda pair: len(pair[1][0]), default=None)


def modality_of(name: str, modalities: Mapping[str, str]) -> str | None:
    """Returns the modality that a channel's name equals or that its pattern matches, or None.

    Args:
        name: name of a channel, in any case.
        modalities: pattern by modality, see :py:func:`modality_datalist`.
    """
    for modality in modalities:
        if modality.lower() == name.lower():
            return modality
    match = _longest_match(name, modalities)
    return match[0] if match else None


def _parse_name(path: str | Path, modalities: Mapping[str, str]) -> tuple[str, str] | None:
    """Reads (case, modality) from a file's name; None if it matches no modality."""
    name = re.sub(STRIPPED, "", case_id(path), flags=re.IGNORECASE)
    longest = _longest_match(name, modalities)
    if longest is None:
        return None
    modality, match = longest
    case = re.sub(ENTITIES, "", name[: match.start()], flags=re.IGNORECASE)
    return case or Path(path).absolute().parent.name, modality


def case_item(files: Sequence[tuple[str, Any]], case: str, modalities: Mapping[str, str], allow_missing: bool) -> dict:
    """Makes the item of one case from (modality, path) pairs; a failure unless there is one file per modality."""
    item: dict[str, Any] = {"image": dict(files), "case": case}
    counts = Counter(modality for modality, _ in files)
    repeated = [modality for modality, count in counts.items() if count > 1]
    missing = [modality for modality in modalities if modality not in counts]
    if repeated:
        item[FAILURE] = f"more than one file of {', '.join(repeated)}"
    elif missing and (not allow_missing or len(missing) == len(modalities)):
        hint = "" if len(missing) == len(modalities) else " (allow_missing true segments without)"
        item[FAILURE] = f"no file of {', '.join(missing)}{hint}"
    elif missing:
        logger.warning(
            f"{Path(place_of(files[0][1])).parent / case}: no file of {', '.join(missing)}, segmented without"
        )
    return item


def _entry_fault(entry: Any) -> str | None:
    """Returns what is wrong with an entry of a JSON datalist, or None."""
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


def _item_of_entry(entry: Any, base: Path, modalities: Mapping[str, str], allow_missing: bool) -> dict:
    """Makes the item of an entry of a JSON datalist."""
    if fault := _entry_fault(entry):
        return {"image": str(base), "case": "?", FAILURE: fault}
    image = entry["image"]
    if isinstance(image, str):
        return {"image": str(base / image), "case": str(entry.get("case", case_id(image)))}
    if isinstance(image, Mapping):
        return _item_of_paths(
            {str(m): base / p for m, p in image.items()}, entry.get("case"), modalities, allow_missing
        )
    files, cases, unknown = [], [], []
    for path in image:
        parsed = _parse_name(path, modalities)
        if parsed is None:
            unknown.append(Path(path).name)
        else:
            cases.append(parsed[0])
            files.append((parsed[1], str(base / path)))
    case = str(entry.get("case", cases[0] if cases else case_id(image[0])))
    if unknown:
        reason = (
            f"cannot infer the modality of {', '.join(unknown)} from the file name: "
            f"use {{modality: path}} entries ({', '.join(modalities)})"
        )
        return {"image": str(base / image[0]), "case": case, FAILURE: reason}
    return case_item(files, case, modalities, allow_missing)


def _item_of_paths(paths: Mapping[str, Path], case: Any, modalities: Mapping[str, str], allow_missing: bool) -> dict:
    """Makes the item of paths by modality: files, or folders with a DICOM series."""
    first = next(iter(paths.values()))
    case = str(case or case_id(first))
    unknown = [m for m in paths if m not in modalities]
    if unknown:
        reason = f"modalities must be of {', '.join(modalities)}, got {', '.join(unknown)}"
        return {"image": str(first), "case": case, FAILURE: reason}
    try:
        files = [(modality, files_of_scan(path)) for modality, path in paths.items()]
    except (ImportError, ValueError) as error:
        return {"image": str(first), "case": case, FAILURE: str(error)}
    return case_item([(m, of[0] if len(of) == 1 else of) for m, of in files], case, modalities, allow_missing)


def modality_datalist(
    path: str, modalities: Mapping[str, str], allow_missing: bool | str = False, grid: str = "scan"
) -> list[dict[str, Any]]:
    """Lists scans to segment: a 4-D file, a folder of scans with its subfolders, or a JSON list.

    A folder holds 4-D files, one file per modality, or DICOM series:

    - The pattern with the longest match in a file's name gives its modality. The text before the match is the case,
      without BIDS entities such as ``run-1``; if there is none, the folder is. Endings such as ``_bet`` or ``_brain``
      are ignored.
    - If that gives no case with all modalities, but words in the names such as ``AX T1 POST`` tell one file of each,
      the folder is a case.
    - The series of one DICOM study are a case. Their folder or description tells the modality. Of several series of one
      modality that with the finest voxels is taken.

    Args:
        path: a file; a folder; or a JSON file with a list of ``{"image": …, "case": name}``. The image is a 4-D file,
            ``{modality: path}``, whose paths may be folders of a DICOM series, or a list of paths whose names contain
            their modalities. Paths are relative to the JSON file.
        modalities: pattern (regular expression, case ignored) by modality, in the network's order of channels.
        allow_missing: segment a case without a modality, with an empty channel, instead of refusing it.
        grid: grid of the predictions, ``"scan"`` or ``"fine"``; it is part of their names.

    Returns:
        items with ``image``, a path or paths by modality, and ``case``; a case that cannot be used has the reason under
        ``FAILURE``, see :py:class:`rare_unet_networks.data.FaultTolerantDataset`.

    Raises:
        ImportError: If the folder holds DICOM files only and pydicom is not installed.
        ValueError: If the path does not exist or contains no scan, or ``grid`` is unknown.
    """
    source, allow_missing = existing_source(path), is_on(allow_missing)
    if source.suffix.lower() == ".json" and source.is_file():
        entries = read_json(source)
        if not isinstance(entries, list) or not entries:
            raise ValueError(f"input must be a list of cases, {source} holds none.")
        items = [_item_of_entry(entry, source.parent, modalities, allow_missing) for entry in entries]
    elif source.is_dir():
        items = _items_of_folder(source, modalities, allow_missing)
    else:
        items = [{"image": str(source), "case": case_id(source)}]
    refuse_names(items)
    refuse_shared_paths(items, grid)
    logger.info(f"{len(items)} case(s) in {one_line(str(source))}")
    return items


def _items_of_folder(source: Path, modalities: Mapping[str, str], allow_missing: bool) -> list[dict]:
    found = find_scans(source)
    studies = series_by_study(found, list(modalities), lambda name: modality_of(name, modalities))
    found.log()
    refuse_empty(found)
    items, whole_scans = [], []
    for folder, paths in files_by_folder(found.scans).items():
        files_by_case: dict[str, list[tuple[str, str]]] = {}
        whole = []
        for path in paths:
            parsed = _parse_name(path, modalities)
            if parsed is None:
                whole.append({"image": str(path), "case": case_id(path)})
            else:
                files_by_case.setdefault(parsed[0], []).append((parsed[1], str(path)))
        by_words = modalities_by_words(paths, list(modalities))
        is_complete = any({m for m, _ in files} == set(modalities) for files in files_by_case.values())
        if by_words and not is_complete:
            files_by_case, whole = {folder.absolute().name: [(m, str(p)) for m, p in by_words.items()]}, []
        for case, files in files_by_case.items():
            place = folder.relative_to(source).as_posix()
            name = f"{place}/{case}" if found.is_bids else case
            items.append(case_item(files, name, modalities, allow_missing))
        whole_scans += whole
    items += whole_scans
    return items + [case_item(list(files.items()), case, modalities, allow_missing) for case, files in studies]
