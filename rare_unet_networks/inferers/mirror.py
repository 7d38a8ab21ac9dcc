"""Inference for a structure with a left and a right form, when the network was trained on the left one only.

All training crops of MSD Task04 show the hippocampus of one side. A network that is trained on both sides, by mirrored
crops, learns slower (docs/experiment/README.md, "What was tried"). So the network is trained on one side, and inference
detects the side of a scan.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..utils.coarsening import coarsen_and_scale
from ..utils.quality import doubt
from .base import InfererWrapper, RoutingInferer, ScanNotes, logger

__all__ = ["MirrorInferer"]

SIDES = ("auto", "left", "right")


class MirrorInferer(InfererWrapper):
    """Mirrors scans of the right side before inference, and their predictions back.

    With ``side="auto"`` the scan and its mirror image are brought to the coarsest level, which is the cheapest, and
    both are predicted there. The one with the lower entropy per expected foreground voxel is kept. The entropy is
    measured on the level 0 grid if the network predicts on it (any ``output`` but ``"scan"``). A scan that belongs to
    the coarsest level is not predicted a second time. If an outer inferer predicts a scan at several levels, its side
    is chosen once. The metadata of the predictions holds it as ``side``, and as ``side_margin`` by how much the two
    entropies differ.

    Args:
        inferer: inferer for scans of the left side.
        side: ``"auto"``, ``"left"`` (never mirror) or ``"right"`` (always mirror).
        axis: spatial axis to mirror; 0 is left-right in RAS.
        scaling: dictionary transform that scaled the intensities of the scan; it is applied again to the coarse scan,
            under the key ``"image"``, shape (C, *spatial_size), because a mean of scaled intensities has another scale.
            Needed for ``side="auto"``.

    Raises:
        ValueError: if ``side`` is unknown, or ``"auto"`` without ``scaling``.

    Example::

        inferer = MirrorInferer(ResolutionRoutingInferer(levels, output="both"), scaling=scaling)
        inferer(scan, network)["pred"].meta["side"]  # "left" or "right"
    """

    def __init__(
        self,
        inferer: RoutingInferer,
        side: str = "auto",
        axis: int = 0,
        scaling: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]] | None = None,
    ) -> None:
        super().__init__(inferer)
        if side not in SIDES:
            raise ValueError(f"side must be one of {SIDES}, got {side!r}.")
        if side == "auto" and scaling is None:
            raise ValueError("side 'auto' needs scaling, the transform that scaled the scan's intensities, got None.")
        self.side = side
        self.axis = axis
        self.scaling = scaling

    def predict(
        self, x: torch.Tensor, level: int, output: str, network: Callable[..., Any], notes: ScanNotes
    ) -> dict[str, torch.Tensor]:
        """As :py:meth:`rare_unet_networks.inferers.base.RoutingInferer.predict`."""
        if self.side != "auto":
            notes.mirrored = torch.full((len(x),), self.side == "right", device=x.device)
        last = self.levels.num_levels - 1
        if notes.mirrored is None and level == last:
            # One of the two predictions that are compared is the result, so nothing has to be predicted again.
            both_sides = self._predict_both_sides(x, level, output, network, notes)
            notes.mirrored = self._choose(both_sides, notes)
            if notes.trust is not None:
                notes.trust = [notes.trust[i + len(x) * m] for i, m in enumerate(notes.mirrored.long().tolist())]
            return {key: self._chosen(logits, notes.mirrored) for key, logits in both_sides.items()}
        if notes.mirrored is None:
            # The fine grid separates the sides more clearly than the few voxels of the coarsest level.
            grid = "fine" if self.output != "scan" else "scan"
            coarse = self._coarsest(x, level)
            notes.mirrored = self._choose(self._predict_both_sides(coarse, last, grid, network, notes), notes)
        predictions = self.inferer.predict(self._mirror(x, notes.mirrored), level, output, network, notes)
        return {key: self._mirror(logits, notes.mirrored) for key, logits in predictions.items()}

    def _predict_both_sides(
        self, x: torch.Tensor, level: int, output: str, network: Callable[..., Any], notes: ScanNotes
    ) -> dict[str, torch.Tensor]:
        """Predictions of ``x`` and of its mirror image, one after the other along the batch axis."""
        # Mirrored here, before the padding: an odd number of voxels is not padded symmetrically.
        return self.inferer.predict(torch.cat([x, x.flip(2 + self.axis)]), level, output, network, notes)

    def _choose(self, both_sides: dict[str, torch.Tensor], notes: ScanNotes) -> torch.Tensor:
        """Whether the mirror image has the lower entropy, for each member of the batch, shape (B,)."""
        logits = both_sides["pred_fine" if "pred_fine" in both_sides else "pred"]
        as_stored, mirrored = doubt(logits.float().softmax(dim=1)).chunk(2)
        for a, m in zip(as_stored.tolist(), mirrored.tolist()):
            side = "right" if m < a else "left"
            logger.debug(f"{notes.name}side: {side} (entropy per foreground voxel {a:.2f} as stored, {m:.2f} mirrored)")
        notes.side_margin = (mirrored - as_stored).abs()
        return mirrored < as_stored

    def _chosen(self, logits: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
        """Logits of the chosen side of each member, on the grid of the scan as it is stored."""
        as_stored, of_mirror_image = logits.chunk(2)
        condition = mirrored.reshape(-1, *[1] * (logits.ndim - 1))
        return torch.where(condition, of_mirror_image.flip(2 + self.axis), as_stored)

    def _coarsest(self, x: torch.Tensor, level: int) -> torch.Tensor:
        """Brings scans of a level to the coarsest level: means of blocks, whose intensities are scaled again."""
        pairs = zip(self.levels.scale(self.levels.num_levels - 1), self.levels.scale(level))
        factors = [coarsest // current for coarsest, current in pairs]
        return coarsen_and_scale(x, factors, self.scaling)

    def _mirror(self, x: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
        """Mirrors the members of a batch that ``mirrored`` marks."""
        if not mirrored.any():
            return x
        flipped = x.clone()
        flipped[mirrored] = flipped[mirrored].flip(2 + self.axis)
        return flipped
