"""Random scans of whole heads, made in batches on the device: turned, moved, cut, coarse and of any contrast.

A scan has its own field of view, a box of the batch's grid of 4 mm. The head is turned by up to 45° about each axis,
scaled by up to 15 %, perhaps mirrored (left and right then change places), and sampled at 2 mm. Blocks of it are
averaged to the scan's spacing, 1 to 8 mm or with one thick axis, and that is resampled to 4 mm as in inference. Some
scans lose what lies beyond an oblique plane, some heads lose their skull.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

__all__ = ["PLACES", "VOXEL", "RandomHeads"]

PLACES = ("left anterior", "left posterior", "right anterior", "right posterior")
MIRRORED = (2, 3, 0, 1)  # the places after a flip from left to right
VOXEL = 4.0  # mm of the network's finest grid
FINE = 2.0  # mm of the stored heads
SIZES = (32, 48, 64, 80)  # voxels of a batch's grid
SIZE_WEIGHTS = (0.15, 0.4, 0.4, 0.05)
MAX_ANGLE = 45.0  # degrees
MAX_VIEW_MARGIN = 30.0  # mm by which the middle of the hippocampi may lie outside the scan


class RandomHeads:
    """Heads on a device, and random scans of them.

    Args:
        path: file of ``pack_heads.py``.
        device: where the scans are made.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        packed = np.load(path)
        self.names = packed["names"].tolist()
        self.device = device
        self.heads = torch.from_numpy(packed["heads"]).to(device)  # (N, *size) uint8
        self.places = torch.from_numpy(packed["places"]).to(device)  # (N, 4, 3) in mm
        self.stripped = torch.from_numpy(packed["stripped"]).to(device)

    def uniform(self, low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.rand(*shape, device=self.device) * (high - low) + low

    def chance(self, probability: float) -> bool:
        return bool(torch.rand(()) < probability)

    def batch(self, batch_size: int) -> dict[str, torch.Tensor]:
        """Scans of ``batch_size`` random heads.

        Returns:
            ``image`` and ``coarse``, the scans at 4 and 8 mm, shape (B, 1, *size); ``inside``, what lies in the field
            of view at 4 mm; ``places`` in mm from the middle of the grid, shape (B, 4, 3); and ``present``, which of
            them lie in the field of view and were not cut off, shape (B, 4).
        """
        size = [int(np.random.choice(SIZES, p=SIZE_WEIGHTS)) for _ in range(3)]
        chosen = torch.randint(len(self.names), (batch_size,), device=self.device)
        matrices, shifts, low, high = self._placements(batch_size, size)
        fine = self._sample(chosen, matrices, shifts, size)
        places = torch.linalg.solve(matrices, self.places[chosen].mT).mT + shifts[:, None]
        mirrored = torch.linalg.det(matrices) < 0
        places = torch.where(mirrored[:, None, None], places[:, list(MIRRORED)], places)
        present = torch.ones(batch_size, len(PLACES), dtype=torch.bool, device=self.device)
        images = torch.zeros(batch_size, 1, *size, device=self.device)
        coarse = torch.zeros(batch_size, 1, *(n // 2 for n in size), device=self.device)
        inside = torch.zeros(batch_size, 1, *size, dtype=torch.bool, device=self.device)
        for i in range(batch_size):
            box = [slice(a, b) for a, b in zip(low[i], high[i])]  # in voxels of 8 mm
            scan = fine[i : i + 1][(..., *(slice(4 * s.start, 4 * s.stop) for s in box))]
            if self.chance(0.15):
                scan, kept = self._cut(scan, box, size, places[i])
                present[i] &= kept
            corners = torch.tensor([[s.start, s.stop] for s in box], device=self.device) * 2 * VOXEL
            corners = corners - torch.tensor(size, device=self.device)[:, None] * VOXEL / 2
            present[i] &= ((places[i] > corners[:, 0]) & (places[i] < corners[:, 1])).all(dim=1)
            scan = self._acquire(self._contrast(scan))
            four = tuple(slice(2 * s.start, 2 * s.stop) for s in box)
            images[(i, ..., *four)] = scaled(scan)[0]
            coarse[(i, ..., *box)] = scaled(F.avg_pool3d(scan, 2))[0]
            inside[(i, ..., *four)] = True
        return {"image": images, "coarse": coarse, "inside": inside, "places": places, "present": present}

    def _placements(
        self, batch_size: int, size: list[int]
    ) -> tuple[torch.Tensor, torch.Tensor, list[list[int]], list[list[int]]]:
        """Matrices from the scan to the head, positions of the head in the scan (mm), and boxes of 8 mm voxels."""
        angles = self.uniform(-MAX_ANGLE, MAX_ANGLE, 3, batch_size) * math.pi / 180
        angles = torch.where(torch.rand(batch_size, device=self.device) < 0.8, angles, 0.3 * angles)
        matrices = torch.eye(3, device=self.device).expand(batch_size, 3, 3)
        for axis in range(3):
            turn = torch.eye(3, device=self.device).repeat(batch_size, 1, 1)
            a, b = (axis + 1) % 3, (axis + 2) % 3
            turn[:, a, a] = turn[:, b, b] = angles[axis].cos()
            turn[:, a, b], turn[:, b, a] = -angles[axis].sin(), angles[axis].sin()
            matrices = matrices @ turn
        scales = self.uniform(0.87, 1.15, batch_size, 1) * self.uniform(0.95, 1.05, batch_size, 3)
        scales[:, 0] *= 1 - 2 * (torch.rand(batch_size, device=self.device) < 0.5).float()
        matrices = scales[:, :, None] * matrices  # the head is turned, then scaled along its own axes
        low, high, shifts = [], [], []
        for _ in range(batch_size):
            room = [n // 2 for n in size]
            extent = [max(6, n - int(np.random.randint(0, 8))) for n in room]
            start = [int(np.random.randint(0, n - e + 1)) for n, e in zip(room, extent)]
            middle = [((s + e / 2) - n / 2) * 2 * VOXEL for s, e, n in zip(start, extent, room)]
            if self.chance(0.8):
                shift = [m + float(np.random.normal(0, 20)) for m in middle]
            else:
                reach = [e * VOXEL + MAX_VIEW_MARGIN for e in extent]
                shift = [m + float(np.random.uniform(-r, r)) for m, r in zip(middle, reach)]
            low.append(start)
            high.append([s + e for s, e in zip(start, extent)])
            shifts.append(shift)
        return matrices, torch.tensor(shifts, device=self.device, dtype=torch.float32), low, high

    def _sample(
        self, chosen: torch.Tensor, matrices: torch.Tensor, shifts: torch.Tensor, size: list[int]
    ) -> torch.Tensor:
        """The turned heads at 2 mm, intensities about 0 to 1, shape (B, 1, *fine size)."""
        heads = self.heads[chosen, None].float() / 200
        for i, case in enumerate(chosen.tolist()):
            if not self.stripped[case] and self.chance(0.2):  # take the outline of a brain
                brains = self.stripped.nonzero()[:, 0]
                mask = self.heads[brains[int(torch.randint(len(brains), ()))]] > 0
                mask = _dilated(mask, int(torch.randint(1, 5, ())))
                heads[i, 0] *= mask
        axes = [(torch.arange(2 * n, device=self.device) - (2 * n - 1) / 2) * FINE for n in size]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)  # mm
        half = torch.tensor(self.heads.shape[1:], device=self.device) * FINE / 2
        rows = matrices / half[:, None]
        offsets = -torch.einsum("bij,bj->bi", rows, shifts)
        samples = []
        for i in range(len(chosen)):  # one at a time: the coordinates need more memory than the scans
            where = (grid @ rows[i].T + offsets[i]).flip(-1)
            samples.append(F.grid_sample(heads[i : i + 1], where[None], padding_mode="zeros", align_corners=False))
        return torch.cat(samples)

    def _cut(
        self, scan: torch.Tensor, box: list[slice], size: list[int], places: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sets to 0 what lies beyond a random plane near the head's middle; which places remain."""
        normal = F.normalize(torch.randn(3, device=self.device), dim=0)
        centre = places.mean(dim=0) @ normal
        limit = centre + self.uniform(-40, 90, 1)
        axes = [
            (torch.arange(4 * s.start, 4 * s.stop, device=self.device) + 0.5) * FINE - n * VOXEL / 2
            for s, n in zip(box, size)
        ]
        along = sum((axis * normal[i]).reshape([-1 if j == i else 1 for j in range(3)]) for i, axis in enumerate(axes))
        return scan * (along < limit), places @ normal < limit

    def _contrast(self, scan: torch.Tensor) -> torch.Tensor:
        """Bias field, gamma, and now and then another or an inverted contrast."""
        if self.chance(0.5):
            field = torch.randn(1, 1, 3, 3, 3, device=self.device) * self.uniform(0, 0.4, 1)
            scan = scan * F.interpolate(field, scan.shape[2:], mode="trilinear", align_corners=True).exp()
        if self.chance(0.5):
            scan = scan.clamp(min=0) ** float(self.uniform(-0.7, 0.7, 1).exp())
        if self.chance(0.15):  # a random piecewise linear curve; what is 0 stays near 0 in half of them
            knots = torch.rand(5, device=self.device)
            knots[0] = 0 if self.chance(0.5) else knots[0]
            place = scan.clamp(0, 1) * 4
            lower = place.floor().long().clamp(max=3)
            scan = knots[lower] + (knots[lower + 1] - knots[lower]) * (place - lower)
        elif self.chance(0.1):
            scan = torch.where(scan > 0.05, 1.2 - scan.clamp(max=1.2), scan) if self.chance(0.5) else 1.2 - scan
        return scan

    def _acquire(self, scan: torch.Tensor) -> torch.Tensor:
        """Means of blocks of the scan's spacing, noise, and the way to 4 mm."""
        fine = scan.shape[2:]
        kind = float(torch.rand(()))
        if kind < 0.3:
            spacing = [FINE] * 3
        elif kind < 0.7:
            spacing = [float(np.random.uniform(FINE, 8.5))] * 3
        else:
            spacing = [float(np.random.uniform(FINE, 3))] * 3
            spacing[int(np.random.randint(3))] = float(np.random.uniform(3, 8))
        scan = F.adaptive_avg_pool3d(scan, [max(3, round(n * FINE / s)) for n, s in zip(fine, spacing)])
        if self.chance(0.6):
            level = self.uniform(0, 0.12, 1)
            noisy = scan + level * torch.randn_like(scan)
            scan = noisy.abs() if self.chance(0.5) else noisy
        target = [n // 2 for n in fine]
        scan = F.adaptive_avg_pool3d(scan, [min(n, t) for n, t in zip(scan.shape[2:], target)])
        return F.interpolate(scan, target, mode="trilinear", align_corners=False)


def _dilated(mask: torch.Tensor, radius: int) -> torch.Tensor:
    """The mask grown by ``radius`` voxels."""
    return F.max_pool3d(mask[None, None].float(), 2 * radius + 1, stride=1, padding=radius)[0, 0]


def scaled(scan: torch.Tensor) -> torch.Tensor:
    """Intensities from the percentiles 0.5 and 99.5 to 0 and 1, clipped."""
    values = scan.flatten()
    low, high = torch.quantile(values, torch.tensor([0.005, 0.995], device=values.device))
    return ((scan - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
