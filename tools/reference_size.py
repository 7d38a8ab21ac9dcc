"""Computes the ``spatial_size`` of a new task from the headers of its training scans.

    python tools/reference_size.py my_dataset --spacing 1 1 1

Per axis (in RAS order) the 90th percentile of the scans' extents in voxels of ``--spacing``, to the nearest power of
two in log2 (Albertsen et al. 2025, appendix A; the paper says "rounded up", but its own sizes, 32×64×32 for the
hippocampus, are the nearest). Only inputs without a voxel size are placed by it.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from rare_unet_networks.data.datalists import list_niftis

PERCENTILE = 90


def extents(paths: Iterable[Path], spacing: Sequence[float]) -> list[tuple[float, ...]]:
    """Returns the size of each scan in voxels of ``spacing`` (mm), in RAS order."""
    sizes = []
    for path in paths:
        scan = nib.as_closest_canonical(nib.load(path))
        sizes.append(tuple(n * z / s for n, z, s in zip(scan.shape[:3], scan.header.get_zooms(), spacing)))
    return sizes


def reference_size(sizes: Sequence[Sequence[float]]) -> tuple[int, ...]:
    """Per axis the 90th percentile to the nearest power of two, half way between two the smaller one."""
    percentiles = np.percentile(np.asarray(sizes, dtype=float), PERCENTILE, axis=0)
    return tuple(2 ** math.ceil(math.log2(p) - 0.5) for p in percentiles)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset_dir", type=Path, help="with imagesTr/, as the Decathlon's")
    parser.add_argument("--spacing", type=float, nargs=3, default=(1.0, 1.0, 1.0), help="of level 0, mm")
    args = parser.parse_args()
    if not (args.dataset_dir / "imagesTr").is_dir() or not (paths := list_niftis(args.dataset_dir / "imagesTr")):
        parser.error(f"{args.dataset_dir} must have NIfTI files in imagesTr/, found none")
    sizes = extents(paths, args.spacing)
    percentiles = np.percentile(sizes, PERCENTILE, axis=0).round(1).tolist()
    print(f"{len(sizes)} scans, {PERCENTILE}th percentiles {percentiles}")
    print("spatial_size:", list(reference_size(sizes)))


if __name__ == "__main__":
    main()
