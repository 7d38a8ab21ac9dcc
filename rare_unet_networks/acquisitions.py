"""Acquisitions: how a scan that is simulated from a finer one was taken."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.utils import ensure_tuple

from .utils.geometry import format_size

__all__ = ["Acquisition", "read_acquisitions"]

PROFILES = ("gaussian", "box")


@dataclass(frozen=True)
class Acquisition:
    """How a scan is acquired.

    Attributes:
        spacing: distance of the voxels' centres in mm, one entry per axis of the tensor.
        profile: what a voxel averages over, ``"gaussian"`` with a FWHM of its thickness, or ``"box"``, evenly.
        thickness: width of the profile in mm, one entry per axis; below ``spacing`` it leaves gaps between slices.
            The spacing by default.
        offset: shift of the grid in voxels of the new scan, one entry per axis; 0 centres it on the given scan.
        noise: standard deviation of the noise that voxels of the given scan's volume would have, as a fraction of the
            intensity range (0.5 to 99.5 percentile). The signal grows with the volume: voxels of twice the volume have
            half the noise.

    Raises:
        ValueError: on an entry out of its range, an unknown profile or unequal numbers of axes.
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
        """The spacing as tables name it: ``"1x1x5"``."""
        return "x".join(f"{s:.4g}" for s in self.spacing)


def read_acquisitions(acquisitions: Any, spatial_dims: int = 3) -> list[Acquisition]:
    """A list of acquisitions, as a config or a command line gives it.

    Args:
        acquisitions: a list, or the path of a JSON file with one. Its entries: a spacing in mm, as a number (the same
            on every axis) or a list of one number per axis, or a dictionary of :py:class:`Acquisition`'s arguments.
        spatial_dims: number of axes.

    Raises:
        ValueError: on a file that is not such a list, an empty list, an entry that is no acquisition, or one that comes
            twice.
    """
    source = "acquisitions"
    if isinstance(acquisitions, (str, Path)):
        source = str(acquisitions)
        try:
            acquisitions = json.loads(Path(source).read_text(encoding="utf-8"))
        except OSError as error:
            raise ValueError(f"acquisitions must be a list or a JSON file, {source}: {error.strerror}.") from None
        except ValueError as error:
            raise ValueError(f"{source} must be a JSON file: {error}") from None
    if isinstance(acquisitions, (int, float)):
        acquisitions = [acquisitions]
    if not isinstance(acquisitions, Sequence) or not acquisitions:
        raise ValueError(f"{source} must be a list of spacings or acquisitions, got {acquisitions!r}.")
    found = [_acquisition(entry, spatial_dims, source) for entry in acquisitions]
    names = [(a.spacing_name, a.profile) for a in found]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{source} must name each spacing and profile once, got {' '.join(name)} twice.")
    return found


def _acquisition(entry: Any, spatial_dims: int, source: str) -> Acquisition:
    if not isinstance(entry, dict):
        entry = {"spacing": entry}
    if isinstance(entry.get("spacing"), (int, float)):
        entry = {**entry, "spacing": (entry["spacing"],) * spatial_dims}
    try:
        acquisition = Acquisition(**entry)
    except (TypeError, ValueError) as error:  # an unknown or missing name, something that is no number
        raise ValueError(f"{source}: {entry!r} is no acquisition: {error}") from None
    if len(acquisition.spacing) != spatial_dims:
        raise ValueError(f"{source}: spacing must have {spatial_dims} axes, got {acquisition.spacing_name}.")
    return acquisition
