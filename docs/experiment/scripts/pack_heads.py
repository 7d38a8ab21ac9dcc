"""Packs the whole heads into one small file for the training of the localiser.

    python docs/experiment/scripts/pack_heads.py ../shared/data/WholeHead heads.npz [--split train]

Each head is resampled to 2 mm, RAS, 96×128×128 voxels around the middle between its two hippocampi, and scaled to
uint8. Beside it lie four places in mm from that middle: the centres of the anterior and the posterior half of the left
and of the right hippocampus. A half ends at the middle of the hippocampus's long axis. The split of the heads is
``docs/experiment/hippocampus/splits_heads.json``.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import SpatialResample

SPLITS = Path(__file__).parents[1] / "hippocampus/splits_heads.json"
SPACING = 2.0
SIZE = (96, 128, 128)
PLACES = ("left anterior", "left posterior", "right anterior", "right posterior")
SIDES = (1, 2)  # labels of the left and the right hippocampus


def halves(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Centres of the anterior and the posterior half of a hippocampus in mm (RAS), shape (2, 3)."""
    points = nib.affines.apply_affine(affine, np.argwhere(mask))
    offsets = points - points.mean(axis=0)
    axis = np.linalg.svd(offsets, full_matrices=False)[2][0]
    along = offsets @ (axis if axis[1] > 0 else -axis)  # grows towards the front
    middle = (along.min() + along.max()) / 2
    return np.stack([points[along > middle].mean(axis=0), points[along <= middle].mean(axis=0)])


def places_of(path: Path) -> np.ndarray:
    """The four places of a head in mm (RAS), shape (4, 3), in the order of ``PLACES``."""
    labels = nib.load(path)
    data = np.asarray(labels.dataobj)
    return np.concatenate([halves(data == side, labels.affine) for side in SIDES])


def pack(image: Path, places: np.ndarray) -> torch.Tensor:
    """The head around the middle of its places, uint8, shape ``SIZE``."""
    scan = nib.load(image)
    data = torch.from_numpy(np.asarray(scan.dataobj, dtype=np.float32))[None]
    target = np.diag([SPACING, SPACING, SPACING, 1.0])
    target[:3, 3] = places.mean(axis=0) - (np.array(SIZE) - 1) / 2 * SPACING
    spacing = nib.affines.voxel_sizes(scan.affine)
    if spacing.max() < 0.75 * SPACING:  # a mean, not a sample, of fine voxels
        blur = torch.nn.functional.avg_pool3d(data[None], 3, stride=1, padding=1)[0]
        data = blur if spacing.max() < 0.6 * SPACING else data
    resample = SpatialResample(mode="bilinear", padding_mode="zeros", align_corners=False)
    head = resample(MetaTensor(data, affine=scan.affine), torch.from_numpy(target), SIZE)[0].as_tensor()
    top = np.percentile(head[head > head.max() / 50].numpy(), 99.5)
    return (head / float(top) * 200).round().clamp(0, 255).to(torch.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset_dir", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--split", default="train", choices=("train", "test"))
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    names = json.loads(SPLITS.read_text())[args.split]
    heads, places = [], []
    for name in names:
        mm = places_of(args.dataset_dir / "hippocampi" / f"{name}.nii.gz")
        heads.append(pack(args.dataset_dir / "images" / f"{name}.nii.gz", mm))
        places.append(torch.from_numpy(mm - mm.mean(axis=0)).float())
        logging.info(f"{name}: {(mm - mm.mean(axis=0)).round(1).tolist()}")
    without_skull = [bool((head == 0).float().mean() > 0.6) for head in heads]
    packed = {"names": names, "heads": torch.stack(heads), "places": torch.stack(places), "stripped": without_skull}
    np.savez_compressed(args.output, **{key: np.asarray(value) for key, value in packed.items()})
    logging.info(f"{args.output}: {len(names)} heads, {args.output.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
