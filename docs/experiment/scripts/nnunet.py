"""nnU-Net v2 as a rival: gives it our split, makes its coarse inputs, and takes its answers to our evaluator.

Three steps here, nnU-Net's own commands between them (docs/experiment/nnunet.md has the whole sequence):

    python docs/experiment/scripts/nnunet.py convert D $nnUNet_raw/Dataset004_Hippocampus
    python docs/experiment/scripts/nnunet.py inputs D INPUTS
    python docs/experiment/scripts/nnunet.py collect D OUTPUTS PREDICTIONS

The first writes the dataset and splits_final.json, the second INPUTS/{up,pad,spacing}/<scale>/<case>_0000.nii.gz, a
file for each modality, the third PREDICTIONS/{up,pad,spacing}/<scale>/<case>.nii.gz for ``overlays/predictions.json``.
``--task brain_tumor`` does it for the other bundle.

*up*: the coarse scan upsampled linearly to 1 mm; *pad*: its voxels in the middle of an empty 1 mm scan; *spacing*: the
coarse scan with its true affine, which nnU-Net resamples itself. At scale 1 all three are the scan.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from experiment_tasks import TASKS, Task
from monai.transforms import Compose, LoadImaged
from torch.nn import functional as F

from rare_unet_networks.data import labelled_datalist
from rare_unet_networks.levels import format_scale
from rare_unet_networks.transforms.low_resolution import SimulateLowResolutiond
from rare_unet_networks.utils.geometry import rescaled_affine, symmetric_core

MODES = ("up", "pad", "spacing")


def settings(task: Task) -> dict:
    """The bundle's inference.json: classes, modalities, reference size."""
    return json.loads((task.bundle / "configs/inference.json").read_text())


def coarse_scans(
    task: Task, dataset_dir: Path, split: str, levels: range = range(4)
) -> Iterator[tuple[str, int, torch.Tensor, torch.Tensor]]:
    """Case, level, voxels (C, D, H, W) and affine of every coarse scan, made as our evaluator makes it."""
    read = Compose([LoadImaged("image", ensure_channel_first=True), SimulateLowResolutiond("image")])
    for item in labelled_datalist(str(dataset_dir), str(task.splits), split):
        for level in levels:
            scan = read({"image": item["image"], "level": level})["image"]
            yield item["case"], level, scan.as_tensor().float(), scan.affine.double()


def save_channels(scan: torch.Tensor, affine: torch.Tensor, folder: Path, case: str) -> None:
    """A file for each channel, as nnU-Net names them."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, channel in enumerate(scan):
        nib.save(nib.Nifti1Image(channel.numpy(), affine.numpy()), folder / f"{case}_{i:04d}.nii.gz")


def convert(task: Task, dataset_dir: Path, target: Path) -> None:
    fold = {}
    for ours, theirs in (("train", "train"), ("validation", "val")):
        items = labelled_datalist(str(dataset_dir), str(task.splits), ours)
        for case, _, scan, affine in coarse_scans(task, dataset_dir, ours, range(1)):
            save_channels(scan, affine, target / "imagesTr", case)
        (target / "labelsTr").mkdir(parents=True, exist_ok=True)
        for item in items:
            label = nib.load(item["label"])
            labels = np.asarray(label.dataobj).astype(np.uint8)
            nib.save(nib.Nifti1Image(labels, label.affine), target / "labelsTr" / f"{item['case']}.nii.gz")
        fold[theirs] = [item["case"] for item in items]
    config = settings(task)
    description = {
        "channel_names": {str(i): name for i, name in enumerate(config.get("modalities", ["MRI"]))},
        "labels": {"background": 0, **{name: i + 1 for i, name in enumerate(config["class_names"])}},
        "numTraining": len(fold["train"]) + len(fold["val"]),
        "file_ending": ".nii.gz",
    }
    (target / "dataset.json").write_text(json.dumps(description, indent=4))
    # nnU-Net reads it from its preprocessed folder: fold 0 is our split.
    (target / "splits_final.json").write_text(json.dumps([fold], indent=4))
    print(f"{target}: {len(fold['train'])} cases to train, {len(fold['val'])} to validate")


def inputs(task: Task, dataset_dir: Path, target: Path, split: str) -> None:
    reference = settings(task)["levels"]["spatial_size"]
    for case, level, scan, affine in coarse_scans(task, dataset_dir, split):
        size = tuple(scan.shape[1:])
        fine = [n * 2**level for n in size]
        padded = torch.full((len(scan), *map(max, size, reference)), float(scan.min()))
        padded[(..., *symmetric_core(size, padded.shape[1:]))] = scan
        up = F.interpolate(scan[None], fine, mode="trilinear")[0]
        made = {
            "up": (up, rescaled_affine(affine, size, fine)),
            "pad": (padded if level else scan, torch.eye(4)),
            "spacing": (scan, affine),
        }
        for mode, (array, grid) in made.items():
            save_channels(array, grid, target / mode / format_scale(level), case)
    print(f"{target}: {', '.join(MODES)}")


def collect(task: Task, dataset_dir: Path, outputs: Path, target: Path, split: str) -> None:
    for case, level, scan, affine in coarse_scans(task, dataset_dir, split):
        for mode in MODES:
            source = outputs / mode / format_scale(level) / f"{case}.nii.gz"
            answer = nib.load(source)
            labels, grid = np.asarray(answer.dataobj), answer.affine
            if mode == "pad":
                labels, grid = labels[symmetric_core(scan.shape[1:], labels.shape)], affine.numpy()
            path = target / mode / format_scale(level) / f"{case}.nii.gz"
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
        sub.add_argument("--task", choices=TASKS, default="hippocampus")
        sub.add_argument("--splits_file", type=Path, help="the bundle's by default")
        if name != "convert":
            sub.add_argument("--split", default="validation")
    args = vars(parser.parse_args())
    task, splits_file = TASKS[args.pop("task")], args.pop("splits_file")
    task = replace(task, splits=splits_file or task.splits)
    try:
        {"convert": convert, "inputs": inputs, "collect": collect}[args.pop("command")](task, **args)
    except (ValueError, FileNotFoundError) as error:  # both name the path
        parser.error(str(error))


if __name__ == "__main__":
    main()
