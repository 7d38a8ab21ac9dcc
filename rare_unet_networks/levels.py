"""Resolution levels: at which level of the network a scan enters.

Only this file decides on scales, sizes and spacings. Level 0 is the task's full resolution; voxels of level ``d`` are
``2 ** d`` times as large (:py:func:`level_scale`). RARE-UNet (Albertsen et al. 2025, section 3.2) rounds "the input
image size to the nearest matching resolution level". Here "nearest" is measured in log2, and a tie goes to the finer
level. Beyond the paper, a scan with a known voxel size is placed by that (mm) instead of by its size (voxels).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms.utils import compute_divisible_spatial_size
from monai.utils import ensure_tuple

from .utils.geometry import format_size, is_near_spacing, spacing_of

__all__ = ["OUTPUTS", "ResolutionLevels", "Route", "check_divisible", "format_scale", "level_divisor", "level_scale"]

# Grids a network or an inferer predicts on: that of its input, that of level 0, or both of them.
OUTPUTS = ("scan", "fine", "both")
ROUTINGS = ("auto", "spacing", "size")
RULES = ("finest", "volume")
# Affines are often stored in float32: without a little slack, 1.4142135 mm would not be a tie of 1 and 2 mm.
_LOG2_SLACK = 1e-5


def level_scale(level: int) -> int:
    """Ratio of a level's voxel size to that of level 0, the same for every axis."""
    return int(2**level)


# RAREUNet calls the next three functions, so TorchScript compiles them: they may use only what TorchScript supports.
def check_level(level: int, num_levels: int) -> None:
    """Checks that a level exists.

    Raises:
        ValueError: if it does not.
    """
    if level < 0 or level >= num_levels:
        raise ValueError(f"level must be 0 to {num_levels - 1}, got {level}.")


def level_divisor(level: int, num_levels: int, num_stages: int) -> int:
    """Number that every axis of a level's grid must be divisible by, so that each deeper stage halves it exactly.

    Raises:
        ValueError: if the level does not exist.
    """
    check_level(level, num_levels)
    return int(2 ** (num_stages - 1 - level))


def check_divisible(spatial_size: list[int], level: int, divisor: int) -> None:
    """Checks that every axis of a level's grid is divisible by the level's divisor.

    Raises:
        ValueError: if an axis is not.
    """
    for n in spatial_size:
        if n % divisor != 0:
            raise ValueError(f"spatial_size at level {level} must be divisible by {divisor}, got {spatial_size}.")


def format_scale(level: int) -> str:
    """Formats the scale of a level for names of files and folders: ``"1"``, ``"0.5"``, ``"0.25"``, …"""
    return f"{1 / level_scale(level):g}"


@dataclass(frozen=True)
class Route(int):
    """Level of one input (or one batch), and the sizes on the way to its grid.

    An inferer writes it into the metadata of its predictions, as ``prediction.meta["route"]``. It is a number, the
    level, because MONAI's ``decollate_batch`` gives numbers in metadata to every member of a batch as they are. It
    refuses unknown types.

    Attributes:
        level: level at which the input enters, 0 = full resolution.
        scale: ratio of the level's voxel size to that of level 0, one factor per axis.
        spacing: voxel size of the input in mm; None if the input was placed by its size.
        spatial_size: voxels of the input.
        resampled_size: voxels after resampling to the level; equal to ``spatial_size`` if nothing is resampled.
        padded_size: voxels after padding ``resampled_size`` to a size that the level can process.
        reason: why this level was chosen, in words.
    """

    level: int
    scale: tuple[int, ...]
    spacing: tuple[float, ...] | None
    spatial_size: tuple[int, ...]
    resampled_size: tuple[int, ...]
    padded_size: tuple[int, ...]
    reason: str

    def __new__(cls, level: int, *_: Any, **__: Any) -> Route:
        return super().__new__(cls, level)

    @property
    def fine_size(self) -> tuple[int, ...]:
        """Voxels of the level 0 grid that covers the extent of the input."""
        return tuple(n * s for n, s in zip(self.resampled_size, self.scale))

    def __str__(self) -> str:
        fractions = [f"1/{s}" if s > 1 else "1" for s in self.scale]
        scale = fractions[0] if len(set(fractions)) == 1 else "×".join(fractions)
        steps = [f"level {self.level} (scale {scale}): {self.reason}"]
        if self.resampled_size != self.spatial_size:
            steps.append(
                f"resampled from {format_size(self.spatial_size)} to {format_size(self.resampled_size)} voxels"
            )
        if self.padded_size != self.resampled_size:
            steps.append(f"padded from {format_size(self.resampled_size)} to {format_size(self.padded_size)} voxels")
        return ", ".join(steps)


class ResolutionLevels:
    """The resolution levels of a task.

    Args:
        num_levels: number of levels: the gateways plus one for full resolution.
        spatial_size: reference size in voxels at level 0, needed to place inputs by size.
        spacing: reference voxel size in mm at level 0, needed to place inputs by spacing.
        num_stages: encoder stages of the network, including the deepest; ``num_levels + 1`` by default, as in
            :py:class:`rare_unet_networks.networks.RAREUNet`.
        tolerance: an axis is resampled if its spacing differs from the level's by more than this fraction.
        routing: how the level of an input is chosen.

            - ``"spacing"``: by voxel size; axes that differ from the level's spacing are resampled.
            - ``"size"``: by the number of voxels (the paper's rule); nothing is resampled.
            - ``"auto"``: "spacing" for a ``MetaTensor``, "size" for a plain tensor.
        rule: which voxel size of an anisotropic scan decides.

            - ``"finest"``: that of its finest axis.
            - ``"volume"``: the geometric mean of its axes, the edge of a cube of the same volume.
        switch: where the coarser of two neighbouring levels takes over, as the share of the way between them in log2:
            one number, or one for each pair. 0.5 is the nearest level; with 0.75, 1.6 mm enters at level 0 (of 1 mm).

    Raises:
        ValueError: if an argument is out of range, if both ``spatial_size`` and ``spacing`` are missing, or if they
            have different lengths.

    Example::

        levels = ResolutionLevels(num_levels=4, spatial_size=(32, 64, 32), spacing=(1.0, 1.0, 1.0))
        levels.level_of_spacing((1.0, 1.0, 4.0))  # 0: chosen by the finest axis
        levels.level_of_spacing((1.5, 1.5, 1.5))  # 1: log2(1.5) = 0.58 is nearer to 1 than to 0
        levels.level_of_size((8, 16, 8))  # 2
        levels.padded_size((35, 51, 35), level=0)  # (48, 64, 48): four halvings must come out even
    """

    def __init__(
        self,
        num_levels: int,
        spatial_size: Sequence[int] | None = None,
        spacing: Sequence[float] | None = None,
        num_stages: int | None = None,
        tolerance: float = 0.1,
        routing: str = "auto",
        rule: str = "finest",
        switch: float | Sequence[float] = 0.5,
    ) -> None:
        if num_levels < 1:
            raise ValueError(f"num_levels must be at least 1, got {num_levels}.")
        if spatial_size is None and spacing is None:
            raise ValueError("spatial_size or spacing (or both) must be given, got neither.")
        if spatial_size is not None and spacing is not None and len(spatial_size) != len(spacing):
            raise ValueError(f"spatial_size and spacing must have equally many axes, got {spatial_size} and {spacing}.")
        self.num_levels = num_levels
        self.num_stages = num_levels + 1 if num_stages is None else num_stages
        if self.num_stages < num_levels:
            raise ValueError(f"num_stages must be at least num_levels ({num_levels}), got {num_stages}.")
        if not tolerance >= 0:
            raise ValueError(f"tolerance must be 0 or more, got {tolerance}.")
        if routing not in ROUTINGS:
            raise ValueError(f"routing must be one of {ROUTINGS}, got {routing!r}.")
        if rule not in RULES:
            raise ValueError(f"rule must be one of {RULES}, got {rule!r}.")
        self.switch = ensure_tuple(switch) if isinstance(switch, Sequence) else (switch,) * (num_levels - 1)
        if len(self.switch) != num_levels - 1:
            raise ValueError(f"switch must be one number, or one for each of {num_levels - 1} pairs, got {switch}.")
        if not all(0 <= value < 1 for value in self.switch):
            raise ValueError(f"switch must be 0 or more and below 1, got {switch}.")
        self.tolerance = tolerance
        self.routing = routing
        self.rule = rule
        self.spatial_dims = len(ensure_tuple(spatial_size if spatial_size is not None else spacing))
        self.spatial_size = None if spatial_size is None else self._checked_size(spatial_size)
        self.spacing = None if spacing is None else self._checked_spacing(spacing)

    def _checked_size(self, size: Sequence[int]) -> tuple[int, ...]:
        size = tuple(int(n) for n in size)
        if len(size) != self.spatial_dims:
            raise ValueError(f"spatial_size must have {self.spatial_dims} axes, got {len(size)}: {format_size(size)}.")
        if any(n < 1 for n in size):
            raise ValueError(f"spatial_size must be 1 voxel or more on every axis, got {format_size(size)}.")
        return size

    def _checked_spacing(self, spacing: Sequence[float]) -> tuple[float, ...]:
        spacing = tuple(float(s) for s in spacing)
        if len(spacing) != self.spatial_dims:
            raise ValueError(f"spacing must have {self.spatial_dims} axes, got {len(spacing)}: {format_size(spacing)}.")
        if not all(math.isfinite(s) and s > 0 for s in spacing):
            raise ValueError(f"spacing must be finite and above 0 mm on every axis, got {format_size(spacing)}.")
        return spacing

    def _checked_level(self, level: int) -> int:
        check_level(level, self.num_levels)
        return level

    @staticmethod
    def _level_of(log2_ratio: float, switch: Sequence[float]) -> int:
        """Level of a ratio of sizes; exactly at the switch between two levels, the finer one."""
        level = 0
        for finer, share in enumerate(switch):
            if log2_ratio > finer + share + _LOG2_SLACK:
                level = finer + 1
        return level

    def scale(self, level: int) -> tuple[int, ...]:
        """Ratio of a level's voxel size to that of level 0, one factor per axis."""
        return (level_scale(self._checked_level(level)),) * self.spatial_dims

    def level_spacing(self, level: int) -> tuple[float, ...]:
        """Voxel size of a level in mm."""
        if self.spacing is None:
            raise ValueError("spacing of level 0 is unknown: construct ResolutionLevels with spacing.")
        return tuple(s * factor for s, factor in zip(self.spacing, self.scale(level)))

    def level_of_spacing(self, spacing: Sequence[float]) -> int:
        """Level of a voxel size; for an anisotropic scan ``rule`` says which axis decides.

        Args:
            spacing: voxel size in mm, one entry per axis.

        Raises:
            ValueError: if the number of axes is wrong, or a spacing is 0, negative, infinite or NaN.
        """
        reference = self.level_spacing(0)
        ratios = [math.log2(s / r) for s, r in zip(self._checked_spacing(spacing), reference)]
        return self._level_of(min(ratios) if self.rule == "finest" else sum(ratios) / len(ratios), self.switch)

    def is_level_spacing(self, spacing: Sequence[float], level: int) -> bool:
        """Whether a voxel size is that of a level, to the tolerance on every axis."""
        pairs = zip(self._checked_spacing(spacing), self.level_spacing(level))
        return all(is_near_spacing(s, t, self.tolerance) for s, t in pairs)

    def is_fine(self, spacing: Sequence[float]) -> bool:
        """Whether voxels are at most as large as those of level 0 on every axis, to the tolerance.

        Only a label as fine as that says what the prediction on the level 0 grid should be.
        """
        pairs = zip(self._checked_spacing(spacing), self.level_spacing(0))
        return all(s <= t or is_near_spacing(s, t, self.tolerance) for s, t in pairs)

    def level_of_label(self, spacing: Sequence[float]) -> int:
        """Finest level that a label trains: that at which its scan enters, but level 0 only if :py:meth:`is_fine`.

        Args:
            spacing: voxel size of the label in mm, one entry per axis.

        Raises:
            ValueError: as :py:meth:`level_of_spacing`, or if a label that is not fine finds no level but 0.
        """
        if self.is_fine(spacing):
            return 0
        if self.num_levels == 1:
            raise ValueError(
                f"a labelled scan must have voxels of at most {format_size(self.level_spacing(0))} mm "
                f"(to {self.tolerance:.0%}) for a network with one level, got {format_size(tuple(spacing))}."
            )
        return max(1, self.level_of_spacing(spacing))

    def level_of_size(self, spatial_size: Sequence[int]) -> int:
        """Level whose reference size is nearest in log2 over all axes (the paper's rule).

        Args:
            spatial_size: voxels, one entry per axis.

        Raises:
            ValueError: if the number of axes is wrong, or an axis has no voxels.
        """
        if self.spatial_size is None:
            raise ValueError("spatial_size of level 0 is unknown: construct ResolutionLevels with spatial_size.")
        size = self._checked_size(spatial_size)
        # The level with the least sum of squared log2 differences over the axes is the one nearest to their mean.
        mean = sum(math.log2(r / n) for n, r in zip(size, self.spatial_size)) / self.spatial_dims
        return self._level_of(mean, (0.5,) * (self.num_levels - 1))

    def divisor(self, level: int) -> int:
        """Number that every axis of a level's grid must be divisible by, see :py:func:`level_divisor`."""
        return level_divisor(level, self.num_levels, self.num_stages)

    def padded_size(self, spatial_size: Sequence[int], level: int) -> tuple[int, ...]:
        """Smallest size of at least ``spatial_size`` that a level can process.

        The deepest stage keeps at least two voxels, because instance normalisation fails on a single one.
        """
        k = self.divisor(level)
        padded = list(compute_divisible_spatial_size(self._checked_size(spatial_size), k))
        if all(n == k for n in padded):
            padded[0] += k
        return tuple(padded)

    def resampled_size(self, spatial_size: Sequence[int], spacing: Sequence[float], level: int) -> tuple[int, ...]:
        """Voxels over the same extent (mm) at the level's spacing; an axis within the tolerance is not resampled."""
        # To 3 decimals first: the last digits of an affine, which programs write differently, must not decide.
        return tuple(
            n if is_near_spacing(s, t, self.tolerance) else max(1, round(round(n * s / t, 3)))
            for n, s, t in zip(
                self._checked_size(spatial_size), self._checked_spacing(spacing), self.level_spacing(level)
            )
        )

    def distance_warning(self, spacing: Sequence[float] | None) -> str:
        """Warning if a scan is too coarse for a network with these levels; otherwise an empty string.

        The coarsest axis decides, and the ratio of the coarsest to the finest axis: slices so thick that one axis lies
        at the first level and another at the last, such as 1×1×8 mm, are warned of, too. A scan that is finer than
        level 0 is averaged and needs no warning. With one level every coarse scan is upsampled on purpose, so there is
        no warning.

        Args:
            spacing: voxel size of the scan, mm; None, as in the route of a scan that was placed by its size, gives no
                warning.
        """
        if spacing is None or self.num_levels == 1:
            return ""
        last = self.num_levels - 1
        coarsest = self.level_spacing(last)
        if all(s <= t or is_near_spacing(s, t, self.tolerance) for s, t in zip(spacing, coarsest)):
            ratios = [max(1.0, s / t) for s, t in zip(spacing, self.spacing)]
            thickness = max(ratios) / min(ratios)
            if thickness < level_scale(last) * (1 - self.tolerance):
                return ""
            return (
                f"spacing {format_size(spacing)} mm: its slices are {thickness:.3g} times as thick as its voxels are "
                "wide: do not trust the prediction"
            )
        return (
            f"spacing {format_size(spacing)} mm is coarser than the coarsest level's, {format_size(coarsest)} mm: do "
            "not trust the prediction"
        )

    def route(self, image: torch.Tensor) -> Route:
        """Chooses the level of a batch, as ``routing`` says.

        Args:
            image: shape (B, C, *spatial_size). A ``MetaTensor`` without an affine of its own counts as 1 mm, because
                MONAI gives it the identity.

        Raises:
            ValueError: if the number of axes is wrong, a size or spacing is out of range, or the members of the batch
                belong to different levels or need different resampling.
        """
        if image.ndim != self.spatial_dims + 2:
            raise ValueError(
                f"image must have shape (batch, channel, {self.spatial_dims} spatial axes), "
                f"got {format_size(image.shape)}."
            )
        size = self._checked_size(image.shape[2:])
        if self.routing == "size" or (self.routing == "auto" and not isinstance(image, MetaTensor)):
            level = self.level_of_size(size)
            reference = format_size(n / s for n, s in zip(self.spatial_size, self.scale(level)))
            reason = f"size {format_size(size)} is nearest to {reference} voxels"
            return Route(level, self.scale(level), None, size, size, self.padded_size(size, level), reason)
        if not isinstance(image, MetaTensor):
            raise ValueError(f'routing="spacing" needs a MetaTensor with an affine, got {type(image).__name__}.')

        affines = image.affine if image.affine.ndim == 3 else [image.affine]
        spacings = [self._checked_spacing(spacing_of(a, self.spatial_dims)) for a in affines]
        levels = [self.level_of_spacing(s) for s in spacings]
        if len(set(levels)) > 1:
            raise ValueError(f"the members of a batch must belong to one level, got levels {levels}.")
        level, spacing = levels[0], spacings[0]
        sizes = {self.resampled_size(size, s, level) for s in spacings}
        if len(sizes) > 1:
            raise ValueError(f"the members of a batch must need the same resampling, got spacings {spacings} mm.")
        resampled = sizes.pop()
        reason = f"spacing {format_size(spacing)} mm enters at {format_size(self.level_spacing(level))} mm"
        padded = self.padded_size(resampled, level)
        return Route(level, self.scale(level), spacing, size, resampled, padded, reason)
