"""Landmarks of a paired structure in a whole head: the front and back of the left and of the right one.

Positions are in mm along the axes of the scan's grid, from the centre of its first voxel. The axes must run as in RAS,
left to right first, also if the head is turned between them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

__all__ = ["HIPPOCAMPI", "Landmarks", "PairTemplate", "upright_rotation"]

SIDES = ("left", "right")


@dataclass(frozen=True)
class PairTemplate:
    """Usual place of a structure and its mirror image in an upright head, in mm; of the left one.

    Attributes:
        axis: from the centre of its posterior to that of its anterior half.
        distance: between the centres of the left and the right one.
        offset: from its centre to that of its box.
        size: of its box.
        reach: half of its length, as a fraction of ``axis``.
        radius: half of its width.
    """

    axis: tuple[float, float, float]
    distance: float
    offset: tuple[float, float, float]
    size: tuple[float, float, float]
    reach: float
    radius: float

    def points(self) -> torch.Tensor:
        """The four landmarks around their mean, shape (4, 3): left anterior, left posterior, then the right ones."""
        half = torch.tensor(self.axis, dtype=torch.float64) / 2
        middle = torch.tensor([-self.distance / 2, 0.0, 0.0], dtype=torch.float64)
        left = torch.stack([middle + half, middle - half])
        return torch.cat([left, left * MIRROR])

    def box(self, side: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Offset of the centre of a side's box from the centre of the structure, and the size of the box."""
        offset = torch.tensor(self.offset, dtype=torch.float64)
        return offset * MIRROR if side == "right" else offset, torch.tensor(self.size, dtype=torch.float64)


SLACK = 1.0  # mm2, small against the landmarks' spread: where they leave an angle open, the smallest is chosen
MIRROR = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
# Means over the 208 labelled crops of MSD Task04 that are left hippocampi: the crops are 35×50×36 mm on average.
HIPPOCAMPI = PairTemplate(
    axis=(1.2, 18.6, -8.0), distance=50.0, offset=(2.4, 0.5, 1.6), size=(44.0, 62.0, 44.0), reach=1.0, radius=6.0
)


def upright_rotation(points: torch.Tensor, template: PairTemplate) -> torch.Tensor:
    """Rotation that turns an upright head as the landmarks are turned, shape (3, 3).

    It fits the template to the landmarks in the sense of least squares (Kabsch 1976). Where they leave an angle open,
    because one side is missing, it turns as little as possible.

    Args:
        points: the four landmarks in mm, NaN where one is missing, shape (4, 3); at least the two of one side.
    """
    known = points.isfinite().all(dim=1)
    reference, seen = template.points()[known], points[known]
    covariance = (seen - seen.mean(dim=0)).T @ (reference - reference.mean(dim=0))
    u, _, vh = torch.linalg.svd(covariance + SLACK * torch.eye(3, dtype=torch.float64))
    flip = torch.diag(torch.tensor([1.0, 1.0, float(torch.linalg.det(u @ vh).sign())], dtype=torch.float64))
    return u @ flip @ vh


@dataclass
class Landmarks:
    """Landmarks of one head.

    Attributes:
        points: left anterior, left posterior, right anterior, right posterior, in mm, shape (4, 3); NaN where one is
            not in the scan.
        confidence: probability that each is in the scan, shape (4,).
        doubts: reasons in words why they may be wrong.
    """

    points: torch.Tensor
    confidence: torch.Tensor
    doubts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.points = torch.as_tensor(self.points, dtype=torch.float64)
        self.confidence = torch.as_tensor(self.confidence, dtype=torch.float64)
        if self.points.shape != (4, 3) or self.confidence.shape != (4,):
            raise ValueError(
                "landmarks must be points of shape (4, 3) with 4 confidences, got shapes "
                f"{tuple(self.points.shape)} and {tuple(self.confidence.shape)}."
            )

    def of_side(self, side: str) -> torch.Tensor:
        """The anterior and the posterior landmark of a side, shape (2, 3)."""
        first = 2 * SIDES.index(side)
        return self.points[first : first + 2]

    def sides(self) -> list[str]:
        """Sides of which at least one landmark is in the scan."""
        return [side for side in SIDES if bool(self.of_side(side).isfinite().all(dim=1).any())]

    def centre(self, side: str, rotation: torch.Tensor, template: PairTemplate) -> torch.Tensor:
        """Centre of a side's structure; if one landmark is missing, the template gives the way from the other."""
        first = 2 * SIDES.index(side)
        points, reference = self.of_side(side), template.points()[first : first + 2]
        to_centre = (reference.mean(dim=0) - reference) @ rotation.T
        known = points.isfinite().all(dim=1)
        return (points + to_centre)[known].mean(dim=0)

    def reasons(self, low: torch.Tensor, high: torch.Tensor, template: PairTemplate) -> list[str]:
        """Reasons to review what is segmented at these places: something is missing, cut, or as no head shows it.

        Args:
            low: lower corner of the scan in mm, shape (3,).
            high: its upper corner.
            template: the usual places.
        """
        found = self.sides()
        reasons = [f"the {side} one was not found: it is not in the scan" for side in SIDES if side not in found]
        reasons += [
            f"the {side} one is not wholly in the scan" for side in found if self._is_cut(side, low, high, template)
        ]
        return reasons + [f"the places are in doubt: {doubt}" for doubt in [*self.doubts, *self._implausible(template)]]

    def _is_cut(self, side: str, low: torch.Tensor, high: torch.Tensor, template: PairTemplate) -> bool:
        """Whether half of a side, or its front or back end, is outside of the scan."""
        points = self.of_side(side)
        if not bool(points.isfinite().all()):
            return True
        half = (points[0] - points[1]) * template.reach
        ends = torch.stack([points.mean(dim=0) + half, points.mean(dim=0) - half])
        return bool(((ends < low + template.radius) | (ends > high - template.radius)).any())

    def _implausible(self, template: PairTemplate) -> list[str]:
        """What no head shows: lengths or distances far from the template's, or axes that cross."""
        reasons = []
        axes = {}
        length = float(torch.tensor(template.axis, dtype=torch.float64).norm())
        for side in SIDES:
            points = self.of_side(side)
            if bool(points.isfinite().all()):
                axes[side] = points[0] - points[1]
                ratio = float(axes[side].norm()) / length
                if not 0.6 < ratio < 1.5:
                    reasons.append(f"the {side} one seems {ratio:.1f} times as long as usual")
        if len(axes) == 2:
            left, right = axes.values()
            angle = float(torch.rad2deg(torch.acos((left @ right / left.norm() / right.norm()).clamp(-1, 1))))
            if angle > 45:
                reasons.append(f"left and right differ by {angle:.0f} degrees in direction")
            distance = float((self.of_side("right").mean(dim=0) - self.of_side("left").mean(dim=0)).norm())
            if not 0.65 < distance / template.distance < 1.4:
                reasons.append(f"left and right are {distance:.0f} mm apart")
        return reasons
