"""Agreement of the label map of a whole head with the hippocampi of an atlas that is drawn on the same head.

    rare-unet hippocampus ch2.nii.gz -o colin27
    python docs/experiment/scripts/atlas_agreement.py colin27/ch2_seg.nii.gz aal.nii.gz --left 37 --right 38

Prints for each side the Dice, both volumes and the distance of the centres.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.processing import resample_from_to

SIDES = {"left": (1, 2), "right": (3, 4)}  # labels of the map of a whole head


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("segmentation", type=Path)
    parser.add_argument("atlas", type=Path)
    for side in SIDES:
        parser.add_argument(f"--{side}", type=int, required=True, help=f"the atlas's number of the {side} hippocampus")
    args = parser.parse_args()
    segmentation = nib.load(args.segmentation)
    predicted = np.asarray(segmentation.dataobj)
    atlas = np.asarray(resample_from_to(nib.load(args.atlas), segmentation, order=0).dataobj)
    voxel = abs(np.linalg.det(segmentation.affine[:3, :3]))
    for side, labels in SIDES.items():
        ours, theirs = np.isin(predicted, labels), atlas == getattr(args, side)
        if not ours.any() or not theirs.any():
            raise SystemExit(f"error: no {side} hippocampus in {args.atlas if ours.any() else args.segmentation}.")
        dice = 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum())
        centres = [nib.affines.apply_affine(segmentation.affine, np.argwhere(m)).mean(axis=0) for m in (ours, theirs)]
        distance = np.linalg.norm(centres[0] - centres[1])
        volumes = " and ".join(f"{m.sum() * voxel / 1000:.1f} ml" for m in (ours, theirs))
        print(f"{side}: Dice {dice:.3f}, {volumes}, centres {distance:.1f} mm apart")


if __name__ == "__main__":
    main()
