"""Base classes of the inferers: they bring a scan to the grid of its level, and the predictions back."""

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
from ..utils.logs import SCAN_NAME
from ..utils.resampling import as_plain_tensor, copy_meta_like, resample
from ..utils.trust import TrustNotes

__all__ = ["InfererWrapper", "RoutingInferer", "ScanNotes", "note_route"]

logger = logging.getLogger("rare_unet_networks.inferers")  # one for all files here: configs set its level


def scan_name(inputs: torch.Tensor) -> str:
    """Prefix of messages about a scan, ``"file: "``; empty if the file is unknown or there are several."""
    meta = inputs.meta if isinstance(inputs, MetaTensor) else {}
    name = meta.get(SCAN_NAME) or meta.get("filename_or_obj")
    name = name[0] if isinstance(name, (list, tuple)) and len(name) == 1 else name
    return f"{name}: " if isinstance(name, str) and name else ""


@dataclass
class ScanNotes:
    """Decisions about a batch of scans, each taken once and shared by nested inferers.

    Attributes:
        name: prefix of messages about the scan.
        route: its way through the network.
        mirrored: whether each member of the batch has to be mirrored, shape (B,); None if sides do not matter or are
            not chosen yet.
        trust: measures of the prediction of each member, see :py:class:`rare_unet_networks.inferers.TrustInferer`.
        side_margin: by how much the doubt of the two sides differs, for each member, shape (B,); None if the side was
            not chosen by it.
    """

    name: str
    route: Route
    mirrored: torch.Tensor | None = None
    trust: list[TrustNotes] | None = None
    side_margin: torch.Tensor | None = None

    @property
    def sides(self) -> list[str] | None:
        """Side of each member, ``"left"`` or ``"right"`` (the mirrored one)."""
        return None if self.mirrored is None else ["right" if m else "left" for m in self.mirrored.tolist()]


def note_route(
    prediction: torch.Tensor,
    route: Route,
    sides: Sequence[str] | None = None,
    side_margin: torch.Tensor | None = None,
) -> torch.Tensor:
    """Writes ``route``, ``side`` and ``side_margin`` into the metadata of a batch of predictions, a ``MetaTensor``.

    After ``decollate_batch`` every member has the route, the side and the margin that are its own.
    """
    if isinstance(prediction, MetaTensor):
        prediction.meta["route"] = route
        if sides is not None:
            prediction.meta["side"] = sides[0] if len(sides) == 1 else list(sides)
        if side_margin is not None:
            margins = [float(margin) for margin in side_margin]
            prediction.meta["side_margin"] = margins[0] if len(margins) == 1 else margins
    return prediction


class RoutingInferer(Inferer):
    """Base class of inferers that resample a scan to the grid of its level and return predictions on the scan's grid.

    Subclasses implement :py:meth:`predict` and :py:meth:`box` and have four attributes: ``levels``
    (:py:class:`rare_unet_networks.levels.ResolutionLevels`), ``output`` (one of
    :py:data:`rare_unet_networks.levels.OUTPUTS`), ``cval``, the intensity of padding and background, and ``fine_from``,
    the level from which on ``output="both"`` returns the prediction on the level 0 grid alone, or None.
    """

    levels: ResolutionLevels
    output: str
    cval: float
    fine_from: int | None = None

    @abstractmethod
    def predict(
        self, x: torch.Tensor, level: int, output: str, network: Callable[..., Any], notes: ScanNotes
    ) -> dict[str, torch.Tensor]:
        """Computes logits of scans that already lie on the grid of a level.

        Args:
            x: shape (B, C, *spatial_size), a plain tensor of any size, with the voxel size of the level.
            level: level at which ``x`` enters; for a coarser version of the scan not the level of its route.
            output: ``"scan"``, ``"fine"`` or ``"both"``.
            network: called as ``network(x, level=level)`` or ``network(x, level=level, output=output)``.
            notes: decisions about the scan; new ones, such as its side, are added.

        Returns:
            ``pred`` on the grid of ``x``, ``pred_fine`` on the grid of level 0, or both, as ``output`` says.
        """

    @abstractmethod
    def box(self, x: torch.Tensor) -> list[slice]:
        """Part of the spatial axes of ``x`` that is computed; everything outside is predicted as background."""

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """Predicts a batch of scans.

        Args:
            inputs: shape (B, C, *spatial_size); the spacing (mm) of a ``MetaTensor`` comes from its affine.
            network: called as ``network(x, *args, level=level, **kwargs)``; must keep the grid of ``x``. Above level 0
                ``output="fine"`` or ``output="both"`` is passed too, if the inferer's ``output`` needs it.
            args: further positional arguments of the network.
            kwargs: further keyword arguments of the network.

        Returns:
            logits, shape (B, classes, *spatial_size), on the grid that ``output`` names. If ``inputs`` is a
            ``MetaTensor``, so are they: with its metadata, the affine of that grid, the ``route`` and, where sides
            matter, the ``side``. For ``output="both"`` a dictionary of ``pred`` (the scan's grid) and ``pred_fine``.
            If the scan was resampled, or enters at ``fine_from`` or deeper, it holds ``pred_fine`` only, and
            :py:class:`rare_unet_networks.transforms.ResampleToBothGridsd` computes the other from it.

        Raises:
            ValueError: if the input fits no level, see :py:meth:`rare_unet_networks.levels.ResolutionLevels.route`.
        """
        route = self.levels.route(inputs)
        notes = ScanNotes(scan_name(inputs), route)
        logger.debug(f"{notes.name}{route}")
        self._warn_of_distance(notes)
        x = resample(as_plain_tensor(inputs), route.resampled_size)

        def bound(window: torch.Tensor, **options: Any) -> Any:
            return network(window, *args, **options, **kwargs)

        predictions = self.predict(x, route.level, self.output, bound, notes)
        is_resampled = route.resampled_size != route.spatial_size
        is_fine_only = is_resampled or (self.fine_from is not None and route.level >= self.fine_from)
        if self.output == "both" and is_fine_only:
            del predictions["pred"]
        elif "pred" in predictions and is_resampled:
            logits = predictions["pred"].float()
            predictions["pred"] = F.interpolate(logits, route.spatial_size, mode=LINEAR[self.levels.spatial_dims])
        for key, logits in predictions.items():
            prediction = predictions[key] = note_route(
                copy_meta_like(logits, inputs), route, notes.sides, notes.side_margin
            )
            if notes.trust is not None and isinstance(prediction, MetaTensor):
                prediction.meta["trust"] = notes.trust[0] if len(notes.trust) == 1 else list(notes.trust)
        return predictions if self.output == "both" else predictions.popitem()[1]

    def _warn_of_distance(self, notes: ScanNotes) -> None:
        warning = self.levels.distance_warning(notes.route.spacing)
        if warning:
            logger.warning(f"{notes.name}{warning}")


class InfererWrapper(RoutingInferer):
    """Base class of inferers that wrap another one, to change its input or to combine several of its predictions.

    Args:
        inferer: the wrapped inferer, a :py:class:`ResolutionRoutingInferer` or another wrapper.

    Raises:
        ValueError: if it is neither.
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
        """Grid of the predictions."""
        return self.inferer.output

    @property
    def cval(self) -> float:
        """Intensity of padding and background."""
        return self.inferer.cval

    @property
    def fine_from(self) -> int | None:
        """Level from which on ``output="both"`` returns the prediction on the level 0 grid alone."""
        return self.inferer.fine_from

    def box(self, x: torch.Tensor) -> list[slice]:
        """As :py:meth:`RoutingInferer.box`."""
        return self.inferer.box(x)
