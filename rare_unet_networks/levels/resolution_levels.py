"""Which level a scan enters."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from monai.data import MetaTensor
from monai.utils import ensure_tuple

from ..utils.geometry import format_size, is_near_spacing, spacing_of
from .grids import LevelGrids
from .route import Route
from .scales import level_scale

__all__ = ["ResolutionLevels"]

ROUTINGS = ("auto", "spacing", "size")
RULES = ("finest", "volume")
# Affines are often stored in float32: without a little slack, 1.4142135 mm would not be a tie of 1 and 2 mm.
_LOG2_SLACK = 1e-5


class ResolutionLevels(LevelGrids):
    """The resolution levels of a task: their grids, and the level of a scan.

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
        super().__init__(num_levels, spatial_size, spacing, num_stages, tolerance)
        if routing not in ROUTINGS:
            raise ValueError(f"routing must be one of {ROUTINGS}, got {routing!r}.")
        if rule not in RULES:
            raise ValueError(f"rule must be one of {RULES}, got {rule!r}.")
        self.switch = ensure_tuple(switch) if isinstance(switch, Sequence) else (switch,) * (num_levels - 1)
        if len(self.switch) != num_levels - 1:
            raise ValueError(f"switch must be one number, or one for each of {num_levels - 1} pairs, got {switch}.")
        if not all(0 <= value < 1 for value in self.switch):
            raise ValueError(f"switch must be 0 or more and below 1, got {switch}.")
        self.routing = routing
        self.rule = rule

    @staticmethod
    def _level_of(log2_ratio: float, switch: Sequence[float]) -> int:
        """Level of a ratio of sizes; exactly at the switch between two levels, the finer one."""
        level = 0
        for finer, share in enumerate(switch):
            if log2_ratio > finer + share + _LOG2_SLACK:
                level = finer + 1
        return level

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
