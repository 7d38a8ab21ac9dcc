"""Scans of the ten heads that the localiser was not trained on, as they are and simulated in other ways."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import SpatialResample
from pack_heads import SPLITS, places_of

__all__ = ["Head", "head_names", "load_head", "placed"]

FINE = 1.5  # mm; heads with finer voxels than this are at their own resolution


@dataclass
class Head:
    """A head in RAS.

    Attributes:
        name: of its files.
        image: shape (1, D, H, W).
        mask: 1 left, 2 right hippocampus, as hippodeep found them, on the same grid.
        places: the four landmarks, world coordinates in mm, shape (4, 3).
    """

    name: str
    image: MetaTensor
    mask: MetaTensor
    places: np.ndarray

    @property
    def is_fine(self) -> bool:
        return float(nib.affines.voxel_sizes(np.asarray(self.image.affine)).max()) < FINE


def head_names(split: str = "test") -> list[str]:
    return json.loads(SPLITS.read_text())[split]


def _read(path: Path) -> MetaTensor:
    file = nib.as_closest_canonical(nib.load(path))
    data = torch.from_numpy(np.asarray(file.dataobj, dtype=np.float32))
    return MetaTensor(data[None], affine=torch.from_numpy(file.affine))


def load_head(dataset_dir: Path, name: str) -> Head:
    """Reads a head and the places of its hippocampi."""
    mask = dataset_dir / "hippocampi" / f"{name}.nii.gz"
    return Head(name, _read(dataset_dir / "images" / f"{name}.nii.gz"), _read(mask), places_of(mask))


def placed(
    head: Head, rotation: np.ndarray, shift: np.ndarray, extent: float, spacing: float
) -> tuple[MetaTensor, np.ndarray]:
    """A head turned about the middle of its hippocampi and moved, in a cubic field of view.

    Args:
        head: the head.
        rotation: shape (3, 3).
        shift: of the middle of the hippocampi from the centre of the field of view, in mm.
        extent: of the field of view in mm.
        spacing: of the scan in mm.

    Returns:
        the scan along the axes of the world, shape (1, D, H, W); and the affine from the head's world to the scan's.
    """
    n = round(extent / spacing)
    target = np.diag([spacing] * 3 + [1.0])
    target[:3, 3] = -(n - 1) / 2 * spacing
    move = np.eye(4)
    move[:3, :3] = rotation
    move[:3, 3] = shift - rotation @ head.places.mean(axis=0)
    moved = MetaTensor(head.image.as_tensor(), affine=torch.from_numpy(move @ np.asarray(head.image.affine)))
    resample = SpatialResample(mode="bilinear", padding_mode="zeros", align_corners=False, dtype=torch.float32)
    return resample(moved, torch.from_numpy(target), (n, n, n)), move
