"""Finds a paired structure in a whole head: a small RARE-UNet that sees the head at 4 and 8 mm.

Its channels are landmarks. The softmax of a channel runs over the voxels of the scan and one more cell of logit 0, that
means "not in this scan". docs/whole_heads.md says how it was trained and how well it finds the hippocampi.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from monai.data import MetaTensor
from torch import nn
from torch.nn import functional as F

from ..levels import ResolutionLevels
from ..networks.weights import load_weights
from ..utils.geometry import spacing_of, symmetric_core, symmetric_pad
from ..utils.resampling import as_plain_tensor
from .landmarks import Landmarks

__all__ = ["Localiser"]


class Localiser:
    """Finds the landmarks of a head with a network, at all of its levels that are not much finer than the scan.

    The landmarks are those of the finest of these levels. If a coarser one places one elsewhere, this is a doubt.

    Args:
        network: with a channel per landmark; above level 0 it must predict on the grid of level 0 (``fine_convs``).
        checkpoint: its weights; None if it has them.
        levels: the network's levels, with their spacing.
        radius: a landmark is the mean of the voxels within so many mm of the most probable one.
        threshold: least probability that a landmark is in the scan.
        max_difference: distance in mm between two levels above which a landmark is in doubt.

    Raises:
        ValueError: if the weights cannot be used.
    """

    def __init__(
        self,
        network: nn.Module,
        checkpoint: str | Path | None,
        levels: ResolutionLevels,
        radius: float = 12.0,
        threshold: float = 0.5,
        max_difference: float = 8.0,
    ) -> None:
        self.network = network.eval()
        self.checkpoint = checkpoint
        self.levels = levels
        self.radius = radius
        self.threshold = threshold
        self.max_difference = max_difference
        self._loaded = checkpoint is None

    @torch.no_grad()
    def __call__(self, scan: torch.Tensor) -> Landmarks:
        """Finds the landmarks of one scan.

        Args:
            scan: shape (1, 1, D, H, W), axes as in RAS; the spacing of a ``MetaTensor`` comes from its affine, a plain
                tensor counts as 1 mm.
        """
        if not self._loaded:
            load_weights(self.checkpoint, self.network, map_location="cpu")
            self._loaded = True
        self.network.to(scan.device)
        affine = scan.affine.reshape(-1, 4, 4)[0] if isinstance(scan, MetaTensor) else torch.eye(4)
        spacing = spacing_of(affine, 3)
        x = as_plain_tensor(scan).float()
        extent = torch.tensor([n * s for n, s in zip(x.shape[2:], spacing)], dtype=torch.float64)
        finest = self.levels.level_of_spacing(spacing)
        by_level = [self._at_level(x, extent, level) for level in range(finest, self.levels.num_levels)]
        points, confidence = by_level[0]
        doubts = []
        for others, other_confidence in by_level[1:]:
            in_both = torch.minimum(confidence, other_confidence) >= self.threshold
            distance = float(torch.where(in_both, (others - points).norm(dim=1), 0).max())
            if distance > self.max_difference:
                doubts.append(f"two resolutions place them {distance:.0f} mm apart")
        points = points - torch.tensor(spacing, dtype=torch.float64) / 2  # from the first voxel's centre
        points[confidence < self.threshold] = torch.nan
        return Landmarks(points.cpu(), confidence.cpu(), doubts)

    def _at_level(self, x: torch.Tensor, extent: torch.Tensor, level: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions in mm from the corner of the scan, and the probabilities that they are in it."""
        spacings = self.levels.level_spacing(level)
        size = [max(2, round(float(e) / s)) for e, s in zip(extent, spacings)]
        coarse = _scaled(_means(x, size))
        padded = self.levels.padded_size(size, level)
        logits = self.network(symmetric_pad(coarse, padded, 0.0), level=level, output="fine").float()
        scale = self.levels.scale(level)
        logits = logits[(..., *symmetric_core(size, padded, scale))][0].double()
        flat = F.pad(logits.flatten(1), (0, 1)).softmax(dim=1)
        axes = [(torch.arange(n, device=x.device) + 0.5) / n * float(e) for n, e in zip(logits.shape[1:], extent)]
        positions = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3).double()
        voxels, absent = flat[:, :-1], flat[:, -1]
        peaks = positions[voxels.argmax(dim=1)]
        near = torch.cdist(peaks, positions) < self.radius
        weights = voxels * near
        return weights @ positions / weights.sum(dim=1, keepdim=True).clamp(min=1e-12), 1 - absent


def _means(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Means over the voxels of a coarser grid; linear interpolation on axes that become finer."""
    x = F.adaptive_avg_pool3d(x, [min(n, m) for n, m in zip(x.shape[2:], size)])
    return F.interpolate(x, tuple(size), mode="trilinear", align_corners=False)


def _scaled(x: torch.Tensor) -> torch.Tensor:
    """Intensities from the percentiles 0.5 and 99.5 to 0 and 1, clipped, as in training."""
    low, high = torch.quantile(x.flatten(), torch.tensor([0.005, 0.995], device=x.device))
    return ((x - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
