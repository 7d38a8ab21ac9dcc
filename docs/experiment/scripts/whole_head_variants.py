"""Volumes of one head stored, placed and acquired in several ways: the last table of docs/whole_heads.md.

    python docs/experiment/scripts/whole_head_variants.py head.nii.gz [--checkpoint model.pt] [--localiser localiser.pt]

The volume of both hippocampi at 1 mm should not depend on the order of the axes, on where the head lies, on how it is
turned, and little on the voxel size. Prints a line for each way, with the difference to the head as it is.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import SpatialResample
from whole_head_agreement import BUNDLE, Segmenter

from rare_unet_networks.data import Acquisition
from rare_unet_networks.transforms import simulate_acquisition

ANGLE = 30.0  # degrees


def read(path: Path) -> MetaTensor:
    image = nib.as_closest_canonical(nib.load(path))
    data = torch.from_numpy(np.asarray(image.dataobj, dtype=np.float32))
    return MetaTensor(data[None], affine=torch.from_numpy(image.affine))


def turn(axis: int) -> np.ndarray:
    """Rotation about an axis, shape (4, 4)."""
    a, b = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(4)
    matrix[a, a] = matrix[b, b] = np.cos(np.deg2rad(ANGLE))
    matrix[b, a] = np.sin(np.deg2rad(ANGLE))
    matrix[a, b] = -matrix[b, a]
    return matrix


def reordered(head: MetaTensor, axcodes: str) -> MetaTensor:
    """The same voxels in another order of axes, as another scanner stores them."""
    target = nib.orientations.axcodes2ornt(axcodes)
    image = nib.Nifti1Image(head[0].numpy(), np.asarray(head.affine, dtype=np.float64))
    image = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), target))
    return MetaTensor(torch.from_numpy(np.asarray(image.dataobj).copy())[None], affine=torch.from_numpy(image.affine))


def turned_in_scan(head: MetaTensor, axis: int) -> MetaTensor:
    """The head turned within its scan, resampled to a grid of the same voxels around it."""
    affine = np.asarray(head.affine, dtype=np.float64)
    middle = affine @ np.array([*((np.array(head.shape[1:]) - 1) / 2), 1.0])
    to_middle = np.eye(4)
    to_middle[:3, 3] = -middle[:3]
    moved = MetaTensor(head.as_tensor(), affine=torch.from_numpy(turn(axis) @ to_middle @ affine))
    spacing = nib.affines.voxel_sizes(affine).min()
    n = int(np.ceil(max(head.shape[1:]) * 1.1))
    target = np.diag([spacing] * 3 + [1.0])
    target[:3, 3] = -(n - 1) / 2 * spacing
    resample = SpatialResample(mode="bilinear", padding_mode="zeros", align_corners=False, dtype=torch.float32)
    return resample(moved, torch.from_numpy(target), (n, n, n))


def variants(head: MetaTensor) -> Iterator[tuple[str, MetaTensor]]:
    yield "as it is", head
    for axcodes in ("LPS", "PSR", "AIL"):
        yield f"stored as {axcodes}", reordered(head, axcodes)
    affine = turn(0) @ np.asarray(head.affine, dtype=np.float64)
    yield f"oblique header, {ANGLE:g}°", MetaTensor(head.as_tensor(), affine=torch.from_numpy(affine))
    for axis, name in enumerate(("pitch", "roll", "yaw")):
        yield f"turned by {ANGLE:g}°, {name}", turned_in_scan(head, axis)
    for name, spacing in (("1.4 mm", 1.4), ("2 mm", 2.0), ("4 mm", 4.0)):
        yield name, simulate_acquisition(head, Acquisition((spacing,) * 3))
    for axis, name in enumerate(("sagittal", "coronal", "axial")):
        thick = tuple(5.0 if i == axis else 1.0 for i in range(3))
        yield f"slices of 5 mm, {name}", simulate_acquisition(head, Acquisition(thick))


def volumes(probabilities: MetaTensor) -> list[float]:
    """Volumes of the left and of the right hippocampus in mm3."""
    labels = probabilities.argmax(dim=0).as_tensor()
    voxel = float(torch.linalg.det(probabilities.affine[:3, :3].double()).abs())
    return [float(((labels == a) | (labels == b)).sum()) * voxel for a, b in ((1, 2), (3, 4))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("head", type=Path)
    parser.add_argument("--checkpoint", type=Path, default=BUNDLE / "models/model.pt")
    parser.add_argument("--localiser", type=Path, default=BUNDLE / "models/localiser.pt")
    args = parser.parse_args()
    logging.getLogger("rare_unet_networks").setLevel(logging.ERROR)
    segment = Segmenter(args.checkpoint, args.localiser)
    print("| | left mm³ | right mm³ | difference | turned | review |\n|---|---|---|---|---|---|")
    whole = None
    for name, scan in variants(read(args.head)):
        probabilities, notes = segment(scan)
        left, right = volumes(probabilities)
        whole = whole or left + right
        change = f"{100 * ((left + right) / whole - 1):+.1f} %"
        cells = (name, f"{left:.0f}", f"{right:.0f}", change, f"{notes.turned:.0f}°", "; ".join(notes.reasons))
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
