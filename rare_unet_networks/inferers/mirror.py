"""Inference for a structure that comes in two mirror-image forms, of which the network knows one.

All training crops of MSD Task04 show the hippocampus of one side. A network that learns both sides from mirrored crops
learns slower (docs/experiment/README.md, "What was tried"); this one learns one, and finds out at inference which it
sees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..utils.coarsening import coarsen
from ..utils.quality import doubt
from ..utils.resampling import as_plain_tensor
from .base import InfererWrapper, RoutingInferer, ScanNotes, logger

__all__ = ["MirrorInferer"]

SIDES = ("auto", "left", "right")


class MirrorInferer(InfererWrapper):
    """An inferer that mirrors a scan of the right side first, and its prediction back: the network knows the left one.

    With ``side="auto"`` the scan and its mirror image, both brought to the coarsest level and scaled anew as the scan
    was, go through that level, the cheapest; the one with the lower entropy, per expected foreground voxel, is kept. It
    is measured on the level 0 grid where the network predicts on it (any ``output`` but ``"scan"``). A scan of the
    coarsest level is not run again after that. Where an inferer around this one asks for several levels of a scan, the
    side is chosen once. The predictions' metadata has it as ``side``.

    Args:
        inferer: what a scan of the left side goes through.
        side: ``"auto"``, ``"left"`` (never mirror) or ``"right"`` (always).
        axis: spatial axis to mirror; 0 is left-right in RAS.
        scaling: dictionary transform of the intensities of ``"image"``, shape (C, *spatial_size), the one that made the
            scan what it is: an average of scaled intensities is not on that scale. Needed for ``side="auto"``.

    Raises:
        ValueError: on an unknown ``side``, or ``"auto"`` without ``scaling``.

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
            # The two predictions to be compared are those that are wanted.
            two_sides = self._both_sides(x, level, output, network, notes)
            notes.mirrored = self._choose(two_sides, notes)
            return {key: self._chosen(logits, notes.mirrored) for key, logits in two_sides.items()}
        if notes.mirrored is None:
            finest = "fine" if self.output != "scan" else "scan"  # tells the sides apart more surely than a few voxels
            coarse = self._coarsest(x, level)
            notes.mirrored = self._choose(self._both_sides(coarse, last, finest, network, notes), notes)
        predictions = self.inferer.predict(self._mirror(x, notes.mirrored), level, output, network, notes)
        return {key: self._mirror(logits, notes.mirrored) for key, logits in predictions.items()}

    def _both_sides(
        self, x: torch.Tensor, level: int, output: str, network: Callable[..., Any], notes: ScanNotes
    ) -> dict[str, torch.Tensor]:
        """Predictions for ``x`` and, after them, for its mirror image: mirrored before it is padded, as an odd size is
        not padded symmetrically."""
        return self.inferer.predict(torch.cat([x, x.flip(2 + self.axis)]), level, output, network, notes)

    def _choose(self, two_sides: dict[str, torch.Tensor], notes: ScanNotes) -> torch.Tensor:
        """Whether the mirror image has the lower entropy, for each member of the batch, shape (B,)."""
        logits = two_sides["pred_fine" if "pred_fine" in two_sides else "pred"]
        as_stored, mirrored = doubt(logits.float().softmax(dim=1)).chunk(2)
        for a, m in zip(as_stored.tolist(), mirrored.tolist()):
            side = "right" if m < a else "left"
            logger.info(f"{notes.name}side: {side} (entropy per foreground voxel {a:.2f} as stored, {m:.2f} mirrored)")
        return mirrored < as_stored

    def _chosen(self, logits: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
        as_stored, of_mirror_image = logits.chunk(2)
        which = mirrored.reshape(-1, *[1] * (logits.ndim - 1))
        return torch.where(which, of_mirror_image.flip(2 + self.axis), as_stored)

    def _coarsest(self, x: torch.Tensor, level: int) -> torch.Tensor:
        """Scans of a level at the coarsest level, made as coarse scans are: means of blocks, scaled anew."""
        pairs = zip(self.levels.scale(self.levels.num_levels - 1), self.levels.scale(level))
        factors = [coarsest // entered for coarsest, entered in pairs]
        coarse = [coarsen(member, factors, pad_value=float(member.min())) for member in x.float()]
        return torch.stack([as_plain_tensor(self.scaling({"image": member})["image"]) for member in coarse])

    def _mirror(self, x: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
        if not mirrored.any():
            return x
        turned = x.clone()
        turned[mirrored] = turned[mirrored].flip(2 + self.axis)
        return turned
