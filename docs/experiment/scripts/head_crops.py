"""Makes training crops around the hippocampi of whole heads, in the Decathlon's layout.

A crop is 1 mm isotropic in RAS, reaches 16 mm beyond the hippocampus, and shows it as a left one: the right one is
mirrored. Its label is a consensus: the mean of hippodeep's mask and of the network's probability, which is the mean
over boxes with three margins. What lies more than 3 mm from hippodeep's mask is background. The network says which
class a voxel of the hippocampus has.

    python docs/experiment/scripts/head_crops.py ../shared/data/WholeHead docs/experiment/hippocampus/heads.json \
        runs/head_crops
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage, Orientation, ScaleIntensityRangePercentiles, Spacing, SpatialCrop
from scipy import ndimage

from rare_unet_networks.data import HeaderPreservingNibabelReader
from rare_unet_networks.inferers import ResolutionRoutingInferer
from rare_unet_networks.levels import ResolutionLevels
from rare_unet_networks.networks import RAREUNet

BUNDLE = Path(__file__).parents[3] / "bundles/hippocampus_mri_segmentation"
REACH = 16  # mm of surroundings
MARGINS = (4, 7, 10)  # mm, of the boxes that the network sees


def load(path: Path) -> MetaTensor:
    """Loads a volume in RAS, shape (1, *spatial_size)."""
    read = LoadImage(reader=HeaderPreservingNibabelReader(), ensure_channel_first=True, image_only=True)
    return Orientation(axcodes="RAS", labels=None)(read(path))


def crop_around(image: MetaTensor, mask: np.ndarray, margin: int) -> MetaTensor:
    """Crops to the box of the mask and a margin in voxels."""
    inside = np.argwhere(mask)
    start = np.maximum(inside.min(0) - margin, 0)
    stop = np.minimum(inside.max(0) + 1 + margin, mask.shape)
    return SpatialCrop(roi_start=start, roi_end=stop)(image)


def mean_probabilities(image: MetaTensor, mask: np.ndarray, spacing: float, network: RAREUNet) -> np.ndarray:
    """Mean probabilities over boxes of three margins on the grid of ``image``, shape (3, *spatial_size).

    The scan is 1 mm; it enters at the level of the spacing that it was acquired with.
    """
    levels = ResolutionLevels(num_levels=4, spatial_size=(32, 64, 32), spacing=(1.0, 1.0, 1.0))
    inferer = ResolutionRoutingInferer(levels, output="fine")
    step = 2 if levels.level_of_spacing((spacing,) * 3) else 1
    total = np.zeros((3, *mask.shape), np.float32)
    count = np.zeros(mask.shape, np.float32)
    for margin in MARGINS:
        inside = np.argwhere(mask)
        start = np.maximum(inside.min(0) - margin, 0)
        stop = np.minimum(inside.max(0) + 1 + margin, mask.shape)
        stop = start + (stop - start) // step * step
        box = tuple(slice(a, b) for a, b in zip(start, stop))
        x = ScaleIntensityRangePercentiles(0.5, 99.5, 0, 1, clip=True)(image[(slice(None), *box)].as_tensor())
        x = torch.nn.functional.avg_pool3d(x[None], step)
        scan = MetaTensor(x, affine=torch.diag(torch.tensor([step, step, step, 1.0])))
        with torch.no_grad():
            total[(slice(None), *box)] += inferer(scan, network)[0].softmax(0).numpy()
        count[box] += 1
    outside = count == 0
    total[0][outside] = 1
    return total / np.maximum(count, 1)


def keep_volume(share: np.ndarray, volume: float) -> np.ndarray:
    """Smooths and shifts an interpolated mask so that ``share > 0.5`` has a given volume; interpolation shrinks it."""
    share = ndimage.gaussian_filter(share, 0.7)
    threshold = np.partition(share.ravel(), -round(volume))[-round(volume)]
    return np.clip(share - threshold + 0.5, 0, 1)


def consensus(probabilities: np.ndarray, mask: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Label of the classes from the network's probabilities and hippodeep's mask."""
    foreground = (1 - probabilities[0] + share) / 2 > 0.5
    foreground &= ndimage.distance_transform_edt(~mask) <= 3
    return np.where(foreground, 1 + (probabilities[2] > probabilities[1]), 0).astype(np.uint8)


def make_crops(case: str, source: Path, output: Path, network: RAREUNet) -> None:
    """Writes both hippocampi of a head."""
    head, places = load(source / "images" / f"{case}.nii.gz"), load(source / "hippocampi" / f"{case}.nii.gz")
    spacing = float(head.pixdim.prod() ** (1 / 3))
    high = np.percentile(head.numpy(), 99.9)
    for number, side in ((1, "left"), (2, "right")):
        mask = places.numpy()[0] == number
        image = Spacing((1, 1, 1), mode="bilinear", padding_mode="border")(crop_around(head, mask, 14))
        share = MetaTensor((places == number).float(), affine=places.affine)
        share = Spacing((1, 1, 1), mode="bilinear", padding_mode="zeros")(crop_around(share, mask, 14)).numpy()[0]
        share = keep_volume(share, mask.sum() * spacing**3)
        image = crop_around(image, share > 0.5, REACH)
        share = crop_around(MetaTensor(share[None]), share > 0.5, REACH).numpy()[0]
        if side == "right":
            image, share = MetaTensor(image.as_tensor().flip(1), affine=image.affine), share[::-1].copy()
        mask = share > 0.5
        label = consensus(mean_probabilities(image, mask, spacing, network), mask, share)
        dice = 2 * (mask & (label > 0)).sum() / (mask.sum() + (label > 0).sum())
        print(f"{case} {side}: {image.shape[1:]}, {(label == 1).sum()} and {(label == 2).sum()} mm³, "
              f"hippodeep {mask.sum()} mm³, Dice {dice:.3f}", flush=True)  # fmt: skip
        affine = np.diag([1.0, 1.0, 1.0, 1.0])
        scan = np.clip(image.numpy()[0] / high * 1000, 0, 2000).round().astype(np.int16)
        nib.save(nib.Nifti1Image(scan, affine), output / "imagesTr" / f"{case}_{side}.nii.gz")
        nib.save(nib.Nifti1Image(label, affine), output / "labelsTr" / f"{case}_{side}.nii.gz")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder WholeHead")
    parser.add_argument("splits", type=Path, help="JSON file with the persons of training and test")
    parser.add_argument("output", type=Path)
    parser.add_argument("--split", default="train")
    parser.add_argument("--checkpoint", type=Path, default=BUNDLE / "models/model.pt")
    args = parser.parse_args()
    for folder in ("imagesTr", "labelsTr"):
        (args.output / folder).mkdir(parents=True, exist_ok=True)
    network = RAREUNet(3, 1, 3, (16, 32, 64, 96, 128), num_gateways=3, fine_convs=1, fine_channels=(32, 96, 256)).eval()
    network.load_state_dict(torch.load(args.checkpoint, weights_only=True))
    cases = json.loads(args.splits.read_text())[args.split]
    for case in cases:
        make_crops(case, args.source, args.output, network)
    splits = {"train": [f"{case}_{side}" for case in cases for side in ("left", "right")]}
    (args.output / "splits.json").write_text(json.dumps(splits, indent=1))


if __name__ == "__main__":
    main()
