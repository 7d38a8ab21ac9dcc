"""Cuts the bundle's sample scans from the ICBM 152 (2009a, symmetric) T1 template that the nilearn wheel carries.

    pip install nilearn && python docs/experiment/scripts/make_samples.py

Both hippocampal regions, 36×52×36 mm, at 1, 2 and 4 mm isotropic and at 1×1×4 mm, and the whole head at 1 mm and at
1×1×5 mm; coarse voxels are the mean of the voxels they replace.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage, Resize, SaveImage, SpatialCrop

TEMPLATE = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
FIRST = {"left": (-46, -48, -31), "right": (11, -48, -31)}  # first voxel of the region, mm in MNI space
SIZE = (36, 52, 36)
FACTORS = {"1mm": (1, 1, 1), "2mm": (2, 2, 2), "4mm": (4, 4, 4), "1x1x4mm": (1, 1, 4)}
HEADS = {"1mm": (1, 1, 1), "1x1x5mm": (1, 1, 5)}
SAMPLE = Path(__file__).parents[3] / "bundles/hippocampus_mri_segmentation/sample"


def region(template: MetaTensor, side: str) -> MetaTensor:
    """The hippocampal region of one side; the two are exact mirror images."""
    first = torch.tensor([*FIRST[side], 1], dtype=torch.float64)
    start = [round(float(x)) for x in torch.linalg.inv(template.affine.double())[:3] @ first]
    return SpatialCrop(roi_start=start, roi_end=[s + n for s, n in zip(start, SIZE)])(template)


def save(scan: MetaTensor, name: str, factors: tuple[int, ...], folder: Path, dtype: type) -> None:
    """Saves means of blocks; the last slices that fill no block are left out."""
    size = [n // f for n, f in zip(scan.shape[1:], factors)]
    whole = SpatialCrop(roi_start=(0, 0, 0), roi_end=[n * f for n, f in zip(size, factors)])(scan)
    coarse = Resize(size, mode="area")(whole)
    coarse.meta["filename_or_obj"] = f"icbm152_{name}.nii.gz"
    SaveImage(folder, output_postfix="", separate_folder=False, resample=False, output_dtype=dtype)(coarse)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--template", help="the template, by default the installed nilearn's")
    parser.add_argument("--output_dir", type=Path, default=SAMPLE, help="default: %(default)s")
    args = parser.parse_args()
    path = args.template
    if path is None:
        spec = importlib.util.find_spec("nilearn")
        if spec is None:
            parser.error("nilearn is not installed: pip install nilearn, or give --template")
        path = Path(spec.origin).parent / TEMPLATE
    template = LoadImage(ensure_channel_first=True)(path)
    crops = {side: region(template, side) for side in FIRST}
    if not torch.equal(crops["left"].as_tensor(), crops["right"].as_tensor().flip(1)):
        parser.error("the template is not symmetric, or the crops are not mirror images")
    for side, crop in crops.items():
        for name, factors in FACTORS.items():
            save(crop, f"{side}_{name}", factors, args.output_dir / "images", np.float32)
    for name, factors in HEADS.items():
        save(template, f"head_{name}", factors, args.output_dir / "heads", np.uint8)


if __name__ == "__main__":
    main()
