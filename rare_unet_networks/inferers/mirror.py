"""Inference for a structure that comes in two mirror-image forms, of which the network knows one.

All training crops of MSD Task04 show the hippocampus of one side. A network that learns both sides from mirrored crops
learns slower (docs/experiment/README.md, "What was tried"); this one learns one, and finds out at inference which it
sees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..utils.geometry import symmetric_core, symmetric_pad
from ..utils.resampling import area_resize, as_plain_tensor, copy_meta_like, resample
from .routing import ResolutionRoutingInferer, logger

__all__ = ["MirrorInferer"]

SIDES = ("auto", "as_is", "mirrored")


class MirrorInferer(ResolutionRoutingInferer):
    """:py:class:`ResolutionRoutingInferer` that mirrors a scan of the other side first, and its answer back.

    With ``side="auto"`` the scan and its mirror image, both brought to the coarsest level and scaled anew as the scan
    was, go through that level, the cheapest; the one the network is surer of is taken. Sure is: the least entropy per
    expected voxel of structure, in the answer on the level 0 grid where the network gives one (any ``output`` but
    ``"native"``). A scan of the coarsest level is not run again after that.

    Args:
        args: as :py:class:`ResolutionRoutingInferer`.
        side: ``"auto"``, ``"as_is"`` (never mirror) or ``"mirrored"`` (always).
        axis: spatial axis to mirror; 0 is left-right in RAS.
        scaling: dictionary transform of the intensities of ``"image"``, shape (C, *spatial_size), the one that made the
            scan what it is: an average of scaled intensities is not on that scale. Needed for ``side="auto"``.
        kwargs: as :py:class:`ResolutionRoutingInferer`.

    Raises:
        ValueError: on an unknown ``side``, or ``"auto"`` without ``scaling``.
    """

    def __init__(
        self,
        *args: Any,
        side: str = "auto",
        axis: int = 0,
        scaling: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if side not in SIDES:
            raise ValueError(f"side must be one of {SIDES}, got {side!r}.")
        if side == "auto" and scaling is None:
            raise ValueError("side 'auto' needs scaling, the transform that scaled the scan's intensities, got None.")
        self.side = side
        self.axis = axis
        self.scaling = scaling

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """As :py:meth:`ResolutionRoutingInferer.__call__`."""
        if self._at_the_coarsest(inputs):
            mirrored, two_sides = self._two_sides(inputs, network, *args, **kwargs)
            answers = {key: self._chosen(logits, mirrored, inputs) for key, logits in two_sides.items()}
            return answers if self.output == "both" else answers.popitem()[1]
        mirrored = self.is_mirrored(inputs, network, *args, **kwargs)
        logits = super().__call__(self._mirror(inputs, mirrored), network, *args, **kwargs)
        if isinstance(logits, dict):
            return {key: self._mirror(value, mirrored) for key, value in logits.items()}
        return self._mirror(logits, mirrored)

    def is_mirrored(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Whether each member of the batch is to be mirrored, shape (B,)."""
        if self.side != "auto":
            return torch.full((len(inputs),), self.side == "mirrored", device=inputs.device)
        if self._at_the_coarsest(inputs):
            return self._two_sides(inputs, network, *args, **kwargs)[0]
        last = self.levels.num_levels - 1
        x = self._coarsest(inputs)
        x = torch.cat([x, x.flip(2 + self.axis)])  # before padding: that of an odd size is not its own mirror image
        padded_size = self.levels.padded_size(x.shape[2:], last)
        # The answer at level 0's resolution tells the sides apart more surely than the few voxels of a coarse one.
        fine = self.output != "native" and last > 0
        core = symmetric_core(x.shape[2:], padded_size, scale=2**last if fine else 1)
        x = symmetric_pad(x, padded_size, self.cval)
        logits = network(x, *args, level=last, **({"output": "full"} if fine else {}), **kwargs)
        return self._is_surer_mirrored(logits[(..., *core)], inputs)

    def _at_the_coarsest(self, inputs: torch.Tensor) -> bool:
        """Whether the two answers to be compared are those that are wanted, so that no further pass is needed."""
        return self.side == "auto" and self.route(inputs).level == self.levels.num_levels - 1

    def _two_sides(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Of scans of the coarsest level: whether each is mirrored, and the answers to them and to their mirror images.

        The answers are by grid, shape (2 · B, classes, *spatial_size), the mirror images last.
        """
        x = as_plain_tensor(inputs)
        x = copy_meta_like(torch.cat([x, x.flip(2 + self.axis)]), inputs)
        found = super().__call__(x, network, *args, **kwargs)
        found = found if isinstance(found, dict) else {"pred": found}
        return self._is_surer_mirrored(found["pred_fine" if "pred_fine" in found else "pred"], inputs), found

    def _chosen(self, logits: torch.Tensor, mirrored: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        as_is, of_mirror_image = as_plain_tensor(logits).chunk(2)
        which = mirrored.reshape(-1, *[1] * (logits.ndim - 1))
        return copy_meta_like(torch.where(which, of_mirror_image.flip(2 + self.axis), as_is), inputs)

    def _is_surer_mirrored(self, logits: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """Whether the second half of ``logits``, of the mirror images, is in less doubt than the first, shape (B,)."""
        p = logits.float().softmax(dim=1)
        entropy = -(p * p.clamp(min=1e-8).log()).flatten(1).sum(dim=1)
        doubt = entropy / (1 - p[:, 0]).flatten(1).sum(dim=1).clamp(min=1e-8)
        as_is, mirrored = doubt.chunk(2)
        for a, m in zip(as_is.tolist(), mirrored.tolist()):
            chosen = "mirrored" if m < a else "not mirrored"
            logger.info(f"{self._name(inputs)}{chosen}: less in doubt (as it is {a:.2f}, mirrored {m:.2f})")
        return mirrored < as_is

    def _coarsest(self, inputs: torch.Tensor) -> torch.Tensor:
        """The scan at the coarsest level, made as a coarse scan is: means of blocks, scaled anew."""
        route, last = self.route(inputs), self.levels.num_levels - 1
        x = resample(as_plain_tensor(inputs).float(), route.resampled_size)
        block = 2 ** (last - route.level)
        fitting = [-(-n // block) * block for n in x.shape[2:]]
        x = torch.cat([symmetric_pad(member[None], fitting, float(member.min())) for member in x])
        x = area_resize(x, [n // block for n in fitting])
        return torch.stack([as_plain_tensor(self.scaling({"image": member})["image"]) for member in x])

    def _mirror(self, x: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
        if not mirrored.any():
            return x
        turned = as_plain_tensor(x).clone()
        turned[mirrored] = turned[mirrored].flip(2 + self.axis)
        return copy_meta_like(turned, x)
