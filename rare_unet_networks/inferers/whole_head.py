"""Inference in a whole head, for a network that was trained on crops around a structure of the left side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms.utils import scale_affine

from ..utils.geometry import FIELDS_OF_VIEW, format_size, is_whole_head, spacing_of
from ..utils.labels import most_likely
from ..utils.quality import touches_border
from ..utils.resampling import as_plain_tensor, copy_meta_like
from ..utils.trust import TrustNotes
from .base import RoutingInferer, logger, note_route, scan_name
from .head_regions import Region, affine_of, cut_on_grid, cut_upright, joint_box, joint_probabilities, translation
from .landmarks import HIPPOCAMPI, SIDES, Landmarks, PairTemplate, upright_rotation
from .mirror import MirrorInferer

__all__ = ["HeadNotes", "WholeHeadInferer", "classes_of"]


@dataclass
class HeadNotes(int):
    """Where the structures of a whole head are, in ``prediction.meta["head"]``.

    As a :py:class:`rare_unet_networks.levels.Route` it is a number, so that ``decollate_batch`` hands it on.

    Attributes:
        class_names: names of the classes of the prediction above background.
        start: first voxel of the prediction on the scan's grid, by axis.
        spatial_size: voxels of the scan.
        sides: sides that were segmented.
        turned: angle in degrees by which the head is turned from the axes of the scan.
        centres: world coordinates (mm) of the centre of each side.
        confidence: probability that each side is in the scan.
        reasons: why the prediction should be reviewed.
    """

    class_names: list[str]
    start: tuple[int, ...]
    spatial_size: tuple[int, ...]
    sides: list[str]
    turned: float
    centres: dict[str, list[float]]
    confidence: dict[str, float]
    reasons: list[str] = field(default_factory=list)

    def __new__(cls, *_: Any, **__: Any) -> HeadNotes:
        return super().__new__(cls, 1)

    def classes(self) -> dict[int, str]:
        """Names of the classes of the sides that were segmented, by index."""
        names = dict(enumerate(self.class_names, start=1))
        return {index: name for index, name in names.items() if name.split()[0] in self.sides}


def classes_of(head: HeadNotes | None, class_names: Sequence[str]) -> dict[int, str]:
    """Names of the classes of a prediction above background, by index.

    Args:
        head: notes of the inferer, if the scan was a whole head.
        class_names: classes of a crop.
    """
    return dict(enumerate(class_names, start=1)) if head is None else head.classes()


class WholeHeadInferer(MirrorInferer):
    """Segments a structure and its mirror image in a whole head; a crop around one of them as ``MirrorInferer`` does.

    In a head, ``locate`` finds both. A box around each is cut out of the scan, on the scan's own grid. Only if the head
    is turned by more than ``max_turn``, the box is resampled to an upright grid. The intensities of the box are scaled
    again, the box goes through ``inferer`` (the right one mirrored), and the predictions are put together: classes 1 to
    n of the left side, then those of the right one.

    The prediction covers the boxes of both sides only, because logits of whole heads would need gigabytes. Its affine
    says where it lies. ``meta["head"]``, a :py:class:`HeadNotes`, says it in voxels;
    :py:class:`rare_unet_networks.transforms.ResampleToBothGridsd` brings it to the grid of the scan. In the image the
    first spatial axis must run from left to right, as in RAS.

    Args:
        inferer: inferer for crops of the left side.
        locate: called with the scan, shape (1, C, *spatial_size); returns its :py:class:`Landmarks`.
        side: of a crop, as in :py:class:`MirrorInferer`.
        axis: likewise.
        scaling: likewise; needed for heads.
        class_names: names of the classes above background of one side.
        field_of_view: ``"head"``, ``"crop"``, or ``"auto"``: a scan longer than ``max_extent`` on an axis is a head.
        max_extent: in mm.
        template: where the structure and its mirror image lie in an upright head.
        max_turn: angle in degrees up to which a turned head is segmented on the scan's own grid.

    Raises:
        ValueError: if ``field_of_view`` is unknown or ``scaling`` is missing; in a call, if a head has several scans in
            its batch, or nothing was found in it.
    """

    def __init__(
        self,
        inferer: RoutingInferer,
        locate: Callable[[torch.Tensor], Landmarks],
        side: str = "auto",
        axis: int = 0,
        scaling: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]] | None = None,
        class_names: Sequence[str] = ("anterior", "posterior"),
        field_of_view: str = "auto",
        max_extent: float = 80.0,
        template: PairTemplate = HIPPOCAMPI,
        max_turn: float = 15.0,
    ) -> None:
        super().__init__(inferer, side, axis, scaling)
        if field_of_view not in FIELDS_OF_VIEW:
            raise ValueError(f"field_of_view must be one of {FIELDS_OF_VIEW}, got {field_of_view!r}.")
        if scaling is None:
            raise ValueError("scaling must be the transform that scaled the scan's intensities, got None.")
        self.locate = locate
        self.class_names = list(class_names)
        self.field_of_view = field_of_view
        self.max_extent = max_extent
        self.template = template
        self.max_turn = max_turn

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """As :py:meth:`rare_unet_networks.inferers.base.RoutingInferer.__call__`; for a head with its ``HeadNotes``."""
        if not self._is_head(inputs):
            return super().__call__(inputs, network, *args, **kwargs)
        if len(inputs) != 1:
            raise ValueError(f"a whole head must be alone in its batch, got {len(inputs)} scans.")
        landmarks = self.locate(inputs)
        sides = landmarks.sides()
        if not sides:
            raise ValueError(
                f"expected a {' or '.join(SIDES)} structure in the whole head, found none (--field_of_view crop "
                "segments a crop around one)"
            )
        rotation = upright_rotation(landmarks.points, self.template)
        centres = {side: landmarks.centre(side, rotation, self.template) for side in sides}
        turned = float(torch.rad2deg(torch.acos(((rotation.trace() - 1) / 2).clamp(-1, 1))))
        is_upright = turned <= self.max_turn
        name = scan_name(inputs)
        texts = [f"{side} at {format_size([round(mm) for mm in centres[side].tolist()])} mm" for side in sides]
        how = "cut on the scan's grid" if is_upright else "resampled to an upright grid"
        logger.debug(f"{name}found {' and '.join(texts)}, the head is turned by {turned:.0f} degrees: {how}")
        regions = [self._region(inputs, side, centres[side], None if is_upright else rotation) for side in sides]
        predictions = [self._predict_region(region, network, *args, **kwargs) for region in regions]
        joined, start = self._joined(inputs, regions, predictions, on_scan=is_upright)
        spacing = torch.tensor(spacing_of(affine_of(inputs), 3), dtype=torch.float64)
        high = spacing * (torch.tensor(inputs.shape[2:]) - 0.5)
        voxels = {side: (centre / spacing).tolist() for side, centre in centres.items()}
        notes = HeadNotes(
            class_names=[f"{side} {name}" for side in SIDES for name in self.class_names],
            start=start,
            spatial_size=tuple(inputs.shape[2:]),
            sides=sides,
            turned=turned,
            centres={side: (affine_of(inputs) @ translation(v))[:3, 3].tolist() for side, v in voxels.items()},
            confidence=dict(zip(SIDES, landmarks.confidence.reshape(2, 2).amin(dim=1).tolist())),
            reasons=landmarks.reasons(-spacing / 2, high, self.template) + _touching(regions, predictions),
        )
        for reason in notes.reasons:
            logger.warning(f"{name}{reason}")
        by_side = {region.side: next(iter(p.values())).meta for region, p in zip(regions, predictions)}
        trust = {side: meta["trust"].features[""] for side, meta in by_side.items() if "trust" in meta}
        for prediction in joined.values():
            prediction.meta["head"] = notes
            if trust:
                prediction.meta["trust"] = TrustNotes(trust)
        return joined if self.output == "both" else joined.popitem()[1]

    def _is_head(self, inputs: torch.Tensor) -> bool:
        """Whether a batch is taken as a whole head; the log says so."""
        if not isinstance(inputs, MetaTensor):
            return False
        extent = [n * s for n, s in zip(inputs.shape[2:], spacing_of(affine_of(inputs), 3))]
        is_head = is_whole_head(self.field_of_view, extent, self.max_extent)
        what = "whole head" if is_head else "crop"
        why = f"auto: longer than {self.max_extent:g} mm or not" if self.field_of_view == "auto" else "as told"
        logger.debug(f"{scan_name(inputs)}field of view {format_size(extent)} mm, taken as a {what} ({why})")
        return is_head

    def _region(self, inputs: MetaTensor, side: str, centre: torch.Tensor, rotation: torch.Tensor | None) -> Region:
        """Box of a side, on the scan's grid or, with a rotation, upright at the spacing of the scan's level."""
        offset, size = self.template.box(side)
        if rotation is None:
            return cut_on_grid(inputs, side, centre + offset, size)
        level = self.levels.level_of_spacing([min(spacing_of(affine_of(inputs), 3))] * 3)
        return cut_upright(inputs, side, centre, offset, size, rotation, self.levels.level_spacing(level))

    def _predict_region(
        self, region: Region, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> dict[str, torch.Tensor]:
        """Logits of a box by grid, ``pred`` and ``pred_fine``, one of them or both."""
        scaled = as_plain_tensor(self.scaling({"image": as_plain_tensor(region.crop)[0]})["image"])[None]
        one_side = MirrorInferer(self.inferer, region.side, self.axis)
        prediction = one_side(MetaTensor(scaled).copy_meta_from(region.crop), network, *args, **kwargs)
        return prediction if self.output == "both" else {"pred_fine" if self.output == "fine" else "pred": prediction}

    def _joined(
        self,
        inputs: MetaTensor,
        regions: Sequence[Region],
        predictions: Sequence[dict[str, torch.Tensor]],
        on_scan: bool,
    ) -> tuple[dict[str, torch.Tensor], tuple[int, ...]]:
        """Predictions of both sides on the scan's grid and on that of level 0, and their first voxel in the scan.

        With ``on_scan=False`` and predictions on the finest grid, that on the scan's grid is left to be computed from
        it.
        """
        start, stop = joint_box(regions, inputs.shape[2:])
        part = as_plain_tensor(inputs)[(..., *(slice(a, b) for a, b in zip(start, stop)))]
        box = MetaTensor(part).copy_meta_from(inputs)
        box.affine = (affine_of(inputs) @ translation(start)).reshape(inputs.affine.shape)
        route = self.levels.route(box)
        sizes = {"pred": route.spatial_size, "pred_fine": route.fine_size}
        first = [1 + SIDES.index(region.side) * len(self.class_names) for region in regions]
        joined = {}
        for key in predictions[0]:
            if key == "pred" and "pred_fine" in predictions[0] and not on_scan:
                continue
            scale = torch.as_tensor(scale_affine(box.shape[2:], sizes[key]), dtype=torch.float64)
            logits = joint_probabilities(
                regions,
                [prediction[key] for prediction in predictions],
                first,
                1 + len(SIDES) * len(self.class_names),
                translation(start) @ scale,
                sizes[key],
            )
            joined[key] = note_route(copy_meta_like(logits, box), route)
        return joined, tuple(start)


def _touching(regions: Sequence[Region], predictions: Sequence[dict[str, torch.Tensor]]) -> list[str]:
    """Reason to review for each side that touches the border of its box."""
    reasons = []
    for region, prediction in zip(regions, predictions):
        finest = prediction.get("pred_fine", prediction.get("pred"))
        if touches_border(most_likely(as_plain_tensor(finest)[0])):
            reasons.append(f"the prediction of the {region.side} one touches the border of its box: it may be cut")
    return reasons
