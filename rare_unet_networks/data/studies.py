"""Scans of several modalities as clinics export them: studies of DICOM series, and folders with free file names."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .contrasts import contrast_of_words
from .datalists import case_id
from .dicom import DicomSeries
from .folders import Folder, series_name

__all__ = ["modalities_by_words", "series_by_study"]


def modalities_by_words(paths: Sequence[Path], modalities: Sequence[str]) -> dict[str, Path] | None:
    """Assigns the files of a folder to modalities by the words in their names, such as ``AX T1 POST``.

    Returns:
        path by modality; None unless there is exactly one file of each modality, and no other file.
    """
    found = {contrast_of_words(case_id(path)): path for path in paths}
    return found if len(found) == len(paths) and set(found) == set(modalities) else None


def _voxel_volume(series: DicomSeries) -> float:
    """Volume of a voxel in mm3."""
    spacing = [float(s) for s in series.headers[0].PixelSpacing]
    return math.prod(spacing) * series.slice_distance


def series_by_study(
    found: Folder, modalities: Sequence[str], modality_of: Callable[[str], str | None]
) -> list[tuple[str, dict[str, list[str]]]]:
    """Groups DICOM series by study, with one series of each modality: that with the finest voxels.

    The name of a series' folder tells its modality, else its description or its echo time does. Series that are not
    used are noted in ``found``.

    Args:
        found: the input folder, with its series.
        modalities: names of the modalities.
        modality_of: modality that a name tells, or None.

    Returns:
        case and files by modality of each study. A study is named by the folder that all its series have in common.
    """
    studies: dict[str, list[DicomSeries]] = {}
    for series in found.series:
        study = str(series.headers[0].get("StudyInstanceUID") or series.folder.parent)
        studies.setdefault(study, []).append(series)
    cases: list[str] = []
    grouped = []
    for members in studies.values():
        chosen: dict[str, DicomSeries] = {}
        for series in sorted(members, key=_voxel_volume):
            modality = _modality(series, found.root, modalities, modality_of)
            if modality is None:
                reason = f"it is {series.contrast}" if series.contrast else "nothing tells its contrast"
                found.leave_out(f"left out, because {reason}", series_name(series, found.root))
            elif modality in chosen:
                reason = f"left out, because another series of {modality} has voxels as fine or finer"
                found.leave_out(reason, series_name(series, found.root))
            else:
                chosen[modality] = series
        if chosen:
            place = Path(os.path.commonpath([series.folder for series in members])).relative_to(found.root)
            case = place.as_posix() if place.parts else found.root.resolve().name
            cases.append(case)
            number = cases.count(case)
            name = f"{case}-{number}" if number > 1 else case
            grouped.append((name, {m: chosen[m].files for m in modalities if m in chosen}))
    return grouped


def _modality(
    series: DicomSeries, root: Path, modalities: Sequence[str], modality_of: Callable[[str], str | None]
) -> str | None:
    if series.folder != root:
        name = modality_of(series.folder.name) or contrast_of_words(series.folder.name)
        if name in modalities:
            return name
    name = modality_of(series.description) or series.contrast
    return name if name in modalities else None


def files_by_folder(paths: Sequence[Path]) -> Mapping[Path, list[Path]]:
    """Groups paths by their folder."""
    groups: dict[Path, list[Path]] = {}
    for path in paths:
        groups.setdefault(path.parent, []).append(path)
    return groups
