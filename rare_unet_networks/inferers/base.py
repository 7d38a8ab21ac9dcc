"""What all inferers of the package share: the way of a scan from its own grid to a level's, and of predictions back."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch.nn import functional as F

from ..levels import ResolutionLevels, Route
from ..utils.geometry import LINEAR
from ..utils.quality import distance_warning
from ..utils.resampling import as_plain_tensor, copy_meta_like, resample

__all__ = ["InfererWrapper", "RoutingInferer", "ScanNotes", "note_route"]

logger = logging.getLogger("rare_unet_networks.inferers")  # one for all files here: configs set its level


def scan_name(inputs: torch.Tensor) -> str:
    """Beginning of a message about a scan, ``"file: "``; empty where the file is not known or there are several."""
    name = inputs.meta.get("filename_or_obj") if isinstance(inputs, MetaTensor) else None
    name = name[0] if isinstance(name, (list, tuple)) and len(name) == 1 else name
    return f"{name}: " if isinstance(name, str) and name else ""


@dataclass
class ScanNotes:
    """What is decided about a batch of scans, once: every inferer on the way reads it, and predictions carry it.

    Attributes:
        name: beginning of messages about the scan.
        route: its way through the network.
        mirrored: whether each member shows the side that has to be mirrored, shape (B,); None if that does not matter
            or is not known yet.
    """

    name: str
    route: Route
    mirrored: torch.Tensor | None = None

    @property
    def sides(self) -> list[str] | None:
        """Side of each member, ``"left"`` or ``"right"`` (the mirrored one)."""
        return None if self.mirrored is None else ["right" if m else "left" for m in self.mirrored.tolist()]


def note_route(prediction: torch.Tensor, route: Route, sides: Sequence[str] | None = None) -> torch.Tensor:
    """Writes ``route`` and ``side`` into the metadata of a batch of predictions, if it is a ``MetaTensor``.

    Both survive ``decollate_batch``: every member has the route and its own side.
    """
    if isinstance(prediction, MetaTensor):
        prediction.meta["route"] = route
        if sides is not None:
            prediction.meta["side"] = sides[0] if len(sides) == 1 else list(sides)
    return prediction


class RoutingInferer(Inferer):
    """Routes a scan, brings it to the grid of its level, and the predictions made there back.

    Subclasses say how predictions are made on a level's grid (:py:meth:`predict`), and have ``levels``
    (:py:class:`rare_unet_networks.levels.ResolutionLevels`), ``output`` (one of
    :py:data:`rare_unet_networks.levels.OUTPUTS`) and ``cval``, the intensity of padding and background.
    """

    levels: ResolutionLevels
    output: str
    cval: float

    @abstractmethod
    def predict(
        self, x: torch.Tensor, level: int, output: str, network: Callable[..., Any], notes: ScanNotes
    ) -> dict[str, torch.Tensor]:
        """Logits for scans that lie on the grid of a level already.

        Args:
            x: shape (B, C, *spatial_size), a plain tensor of any size, with the voxel size of the level.
            level: the level that ``x`` enters; for a coarser version of the scan it is not the one of its route.
            output: ``"scan"``, ``"fine"`` or ``"both"``.
            network: called as ``network(x, level=level)`` or ``network(x, level=level, output=output)``.
            notes: what is known of the scan; what is found out is added.

        Returns:
            ``pred`` on the grid of ``x`` and ``pred_fine`` on that of level 0, as far as ``output`` asks for them.
        """

    @abstractmethod
    def box(self, x: torch.Tensor) -> list[slice]:
        """What part of the spatial axes of ``x`` is computed; around it background is predicted."""

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """
        Args:
            inputs: shape (B, C, *spatial_size); a ``MetaTensor`` brings its spacing (mm) by its affine.
            network: called as ``network(x, *args, level=level, **kwargs)``, must keep the grid of ``x``; above level 0
                with ``output="fine"`` or ``output="both"`` where that is asked for.
            args: further positional arguments of the network.
            kwargs: further keyword arguments of the network.

        Returns:
            logits, shape (B, classes, *spatial_size) on the grid asked for, a ``MetaTensor`` with the metadata of
            ``inputs``, the affine of that grid, the ``route`` and, where it matters, the ``side``, if ``inputs`` is
            one. For both, a dictionary: ``pred`` (the scan's grid) and ``pred_fine``; of a scan that had to be
            resampled ``pred_fine`` alone, from which the other is to be computed
            (:py:class:`rare_unet_networks.transforms.ResampleToBothGridsd`).

        Raises:
            ValueError: when the input fits no level, see :py:meth:`rare_unet_networks.levels.ResolutionLevels.route`.
        """
        route = self.levels.route(inputs)
        notes = ScanNotes(scan_name(inputs), route)
        logger.info(f"{notes.name}{route}")
        self._warn_of_distance(notes)
        x = resample(as_plain_tensor(inputs), route.resampled_size)

        def bound(window: torch.Tensor, **options: Any) -> Any:
            return network(window, *args, **options, **kwargs)

        predictions = self.predict(x, route.level, self.output, bound, notes)
        is_resampled = route.resampled_size != route.spatial_size
        if self.output == "both" and is_resampled:
            del predictions["pred"]
        elif "pred" in predictions and is_resampled:
            logits = predictions["pred"].float()
            predictions["pred"] = F.interpolate(logits, route.spatial_size, mode=LINEAR[self.levels.spatial_dims])
        for key, logits in predictions.items():
            predictions[key] = note_route(copy_meta_like(logits, inputs), route, notes.sides)
        return predictions if self.output == "both" else predictions.popitem()[1]

    def _warn_of_distance(self, notes: ScanNotes) -> None:
        spacing = notes.route.spacing
        warning = "" if spacing is None else distance_warning(self.levels, spacing)
        if warning:
            logger.warning(f"{notes.name}{warning}")


class InfererWrapper(RoutingInferer):
    """An inferer around another one: it changes what the other sees, or joins several of its predictions.

    Args:
        inferer: the inferer wrapped, a :py:class:`ResolutionRoutingInferer` or a wrapper itself.

    Raises:
        ValueError: when it is neither.
    """

    def __init__(self, inferer: RoutingInferer) -> None:
        super().__init__()
        if not isinstance(inferer, RoutingInferer):
            raise ValueError(f"inferer must be a RoutingInferer, got {type(inferer).__name__}.")
        self.inferer = inferer

    @property
    def levels(self) -> ResolutionLevels:
        """The resolution levels of the task."""
        return self.inferer.levels

    @property
    def output(self) -> str:
        """The grid of the predictions."""
        return self.inferer.output

    @property
    def cval(self) -> float:
        """Intensity of padding and background."""
        return self.inferer.cval

    def box(self, x: torch.Tensor) -> list[slice]:
        """As :py:meth:`RoutingInferer.box`."""
        return self.inferer.box(x)
