"""nnU-Net v2 as a rival: gives it our split, makes its coarse inputs, and takes its answers to our evaluator.

Three steps here, nnU-Net's own commands between them (docs/nnunet.md has the whole sequence):

    python tools/nnunet.py convert D $nnUNet_raw/Dataset004_Hippocampus
    python tools/nnunet.py inputs D INPUTS
    python tools/nnunet.py collect D OUTPUTS PREDICTIONS

The first writes the dataset and splits_final.json, the second INPUTS/{up,pad,spacing}/<scale>/<case>_0000.nii.gz, the
third PREDICTIONS/{up,pad,spacing}/<scale>/<case>.nii.gz for ``baselines/predictions.json``.

*up*: the coarse scan upsampled linearly to 1 mm; *pad*: its voxels in the middle of an empty 1 mm scan; *spacing*: the
coarse scan with its true affine, which nnU-Net resamples itself. At scale 1 all three are the scan.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.transforms import Compose, LoadImaged
from torch.nn import functional as F

from rare_unet_networks import Coarsend, msd_datalist
from rare_unet_networks.geometry import rescaled_affine, symmetric_core
from rare_unet_networks.levels import scale_name

SPLITS = Path(__file__).parents[1] / "bundles/hippocampus_mri_segmentation/configs/splits.json"
FULL_SIZE = (32, 64, 32)
MODES = ("up", "pad", "spacing")


def coarse_scans(dataset_dir: Path, split: str):
    """Case, level, voxels and affine of every coarse scan, made as our evaluator makes it."""
    read = Compose([LoadImaged("image", ensure_channel_first=True), Coarsend("image")])
    for item in msd_datalist(str(dataset_dir), str(SPLITS), split):
        for level in range(4):
            scan = read({"image": item["image"], "level": level})["image"]
            yield item["case"], level, scan[0].as_tensor().float(), scan.affine.double()


def convert(dataset_dir: Path, target: Path) -> None:
    splits = {name: msd_datalist(str(dataset_dir), str(SPLITS), name) for name in ("train", "validation")}
    for folder in ("imagesTr", "labelsTr"):
        (target / folder).mkdir(parents=True, exist_ok=True)
    for item in [i for items in splits.values() for i in items]:
        shutil.copy(item["image"], target / "imagesTr" / f"{item['case']}_0000.nii.gz")
        shutil.copy(item["label"], target / "labelsTr" / f"{item['case']}.nii.gz")
    description = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "anterior": 1, "posterior": 2},
        "numTraining": sum(map(len, splits.values())),
        "file_ending": ".nii.gz",
    }
    (target / "dataset.json").write_text(json.dumps(description, indent=4))
    # nnU-Net reads it from its preprocessed folder: fold 0 is our split.
    fold = {"train": [i["case"] for i in splits["train"]], "val": [i["case"] for i in splits["validation"]]}
    (target / "splits_final.json").write_text(json.dumps([fold], indent=4))
    print(f"{target}: {len(fold['train'])} cases to train, {len(fold['val'])} to validate")


def full_size(size: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(max(n, m) for n, m in zip(size, FULL_SIZE))


def inputs(dataset_dir: Path, target: Path, split: str) -> None:
    for case, level, scan, affine in coarse_scans(dataset_dir, split):
        size = tuple(scan.shape)
        fine = [n * 2**level for n in size]
        padded = torch.full(full_size(size), float(scan.min()))
        padded[symmetric_core(size, padded.shape)] = scan
        up = F.interpolate(scan[None, None], fine, mode="trilinear")[0, 0]
        made = {
            "up": (up, rescaled_affine(affine, size, fine)),
            "pad": (padded if level else scan, torch.eye(4)),
            "spacing": (scan, affine),
        }
        for mode, (array, grid) in made.items():
            path = target / mode / scale_name(level) / f"{case}_0000.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array.numpy(), grid.numpy()), path)
    print(f"{target}: {', '.join(MODES)}")


def collect(dataset_dir: Path, outputs: Path, target: Path, split: str) -> None:
    for case, level, scan, affine in coarse_scans(dataset_dir, split):
        for mode in MODES:
            source = outputs / mode / scale_name(level) / f"{case}.nii.gz"
            answer = nib.load(source)
            labels, grid = np.asarray(answer.dataobj), answer.affine
            if mode == "pad":
                labels, grid = labels[symmetric_core(scan.shape, labels.shape)], affine.numpy()
            path = target / mode / scale_name(level) / f"{case}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(labels.astype(np.uint8), grid), path)
    print(f"{target}: {', '.join(MODES)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, folders in (("convert", ["target"]), ("inputs", ["target"]), ("collect", ["outputs", "target"])):
        sub = commands.add_parser(name)
        sub.add_argument("dataset_dir", type=Path)
        for folder in folders:
            sub.add_argument(folder, type=Path)
        if name != "convert":
            sub.add_argument("--split", default="validation")
    args = vars(parser.parse_args())
    {"convert": convert, "inputs": inputs, "collect": collect}[args.pop("command")](**args)


if __name__ == "__main__":
    main()
