"""Descriptions of acquisitions, for scans that are simulated from finer ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.utils import ensure_tuple

from ..utils.files import read_json
from ..utils.geometry import format_size

__all__ = ["Acquisition", "read_acquisitions"]

PROFILES = ("gaussian", "box")


@dataclass(frozen=True)
class Acquisition:
    """Describes how a scan is acquired.

    Attributes:
        spacing: distance between voxel centres in mm, one entry per axis of the tensor.
        profile: weights with which a voxel averages: ``"gaussian"`` (``thickness`` is its FWHM) or ``"box"`` (equal).
        thickness: width of the profile in mm, one entry per axis; a value below ``spacing`` leaves gaps between
            slices. By default it equals the spacing.
        offset: shift of the grid in voxels of the new scan, one entry per axis; 0 centres it on the given scan.
        noise: standard deviation of the noise that voxels of the given scan's volume would have, as a fraction of the
            intensity range (0.5 to 99.5 percentile). The signal grows with the volume: voxels of twice the volume have
            half the noise.

    Raises:
        ValueError: If an entry is out of range, the profile is unknown or the numbers of axes differ.
    """

    spacing: tuple[float, ...]
    profile: str = "gaussian"
    thickness: tuple[float, ...] | None = None
    offset: tuple[float, ...] | None = None
    noise: float = 0.0

    def __post_init__(self) -> None:
        for name in ("spacing", "thickness", "offset"):
            values = getattr(self, name)
            if values is None:
                continue
            values = tuple(float(v) for v in ensure_tuple(values))
            object.__setattr__(self, name, values)
            if len(values) != len(self.spacing):
                raise ValueError(f"{name} must have {len(self.spacing)} axes as spacing has, got {len(values)}.")
            if not all(math.isfinite(v) and (v > 0 or name == "offset") for v in values):
                limit = "finite" if name == "offset" else "finite and above 0 mm"
                raise ValueError(f"{name} must be {limit}, got {format_size(values)}.")
        if self.profile not in PROFILES:
            raise ValueError(f"profile must be one of {PROFILES}, got {self.profile!r}.")
        if not self.noise >= 0:
            raise ValueError(f"noise must be 0 or more, got {self.noise}.")

    @property
    def spacing_name(self) -> str:
        """The spacing as tables write it: ``"1x1x5"``."""
        return "x".join(f"{s:.4g}" for s in self.spacing)


def read_acquisitions(acquisitions: Any, spatial_dims: int = 3) -> list[Acquisition]:
    """Reads a list of acquisitions from a config, the command line or a JSON file.

    Args:
        acquisitions: a list, or the path of a JSON file with one. An entry is a spacing in mm (a number for all axes,
            or a list with a number per axis) or a dictionary of :py:class:`Acquisition`'s arguments.
        spatial_dims: number of axes.

    Raises:
        ValueError: If the file is not such a list, the list is empty, an entry is no acquisition, or two entries
            have the same spacing and profile.
    """
    source = "acquisitions"
    if isinstance(acquisitions, (str, Path)):
        source = str(acquisitions)
        try:
            acquisitions = read_json(Path(source))
        except OSError as error:
            raise ValueError(f"acquisitions must be a list or a JSON file, {source}: {error.strerror}.") from None
    if isinstance(acquisitions, (int, float)):
        acquisitions = [acquisitions]
    if not isinstance(acquisitions, Sequence) or not acquisitions:
        raise ValueError(f"{source} must be a list of spacings or acquisitions, got {acquisitions!r}.")
    parsed = [_acquisition(entry, spatial_dims, source) for entry in acquisitions]
    names = [(acquisition.spacing_name, acquisition.profile) for acquisition in parsed]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{source} must name each spacing and profile once, got {' '.join(name)} twice.")
    return parsed


def _acquisition(entry: Any, spatial_dims: int, source: str) -> Acquisition:
    if not isinstance(entry, dict):
        entry = {"spacing": entry}
    if isinstance(entry.get("spacing"), (int, float)):
        entry = {**entry, "spacing": (entry["spacing"],) * spatial_dims}
    try:
        acquisition = Acquisition(**entry)
    except (TypeError, ValueError) as error:  # an unknown or missing argument, or a value that is not a number
        raise ValueError(f"{source}: {entry!r} is no acquisition: {error}") from None
    if len(acquisition.spacing) != spatial_dims:
        raise ValueError(f"{source}: spacing must have {spatial_dims} axes, got {acquisition.spacing_name}.")
    return acquisition
