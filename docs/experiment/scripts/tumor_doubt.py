"""Doubt and Dice of right and of wrong scans of brain tumours: the table in the tumour bundle's documentation.

    python docs/experiment/scripts/tumor_doubt.py --dataset_dir Task01_BrainTumour --results doubt.csv [--scales 2 4 8]

Makes scans of several voxel sizes of the validation cases, as they are and spoilt in several ways, and notes for each
its doubt and the Dice of the whole tumour. Scans that the file of results already has are not made again. On one core a
scan of 1 mm takes about half a minute, one of 2 mm five seconds.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from doubt import block_means
from monai.bundle import ConfigWorkflow
from monai.data import MetaTensor
from scipy.ndimage import rotate

from rare_unet_networks.data import labelled_datalist

BUNDLE = Path(__file__).parents[3] / "bundles/brain_tumor_mri_segmentation"
COLUMNS = ("case", "scale", "kind", "doubt", "wt_dice")
# Axes of the array and their directions in a header that is wrong; mirrored left to right a scan would be right.
WRONG_AXES = {
    "upside down": ((0, 1, 2), (1, 1, -1)),
    "back to front": ((0, 1, 2), (1, -1, 1)),
    "axes 2 and 3 swapped": ((0, 2, 1), (1, 1, 1)),
    "axes 1 and 3 swapped": ((2, 1, 0), (1, 1, 1)),
    "axes 1 and 2 swapped": ((1, 0, 2), (1, 1, 1)),
    "axes in turn": ((1, 2, 0), (1, -1, 1)),
}


def spoilt(scan: np.ndarray, label: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Wrong scans made from a right one, by kind; shapes (channels, *spatial_size) and (*spatial_size,)."""
    for kind, (axes, flips) in WRONG_AXES.items():
        turned = tuple(slice(None, None, flip) for flip in flips)
        channels = np.stack([channel.transpose(axes)[turned] for channel in scan])
        yield f"wrong axes: {kind}", channels, label.transpose(axes)[turned]
    brain = scan > 0
    yield "modalities: order of BraTS", scan[[1, 2, 3, 0]], label
    yield "modalities: T1 and T1Gd swapped", scan[[0, 2, 1, 3]], label
    yield "inverted contrast", np.where(brain, scan.max(axis=(1, 2, 3), keepdims=True) - scan + 1, 0), label
    yield "noise", np.where(brain, 100 + 20 * np.random.default_rng(0).normal(size=scan.shape), 0), label
    for plane in ((0, 1), (1, 2)):
        channels = np.stack([rotate(channel, 45, axes=plane, reshape=False, order=1) for channel in scan])
        yield f"turned by 45°: {plane}", channels, rotate(label, 45, axes=plane, reshape=False, order=0)
    tumor = np.argwhere(label > 0)
    middle = (tumor.min(axis=0) + tumor.max(axis=0)) // 2
    for axis in range(3):
        yield f"cut in half: {axis}", scan.take(range(middle[axis]), axis + 1), label.take(range(middle[axis]), axis)


def whole_tumor_dice(prediction: np.ndarray, label: np.ndarray) -> float:
    return float(2 * (prediction & label).sum() / max(1, prediction.sum() + label.sum()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--scales", type=int, nargs="+", default=[1, 2, 4, 8])
    args = parser.parse_args()
    workflow = ConfigWorkflow(
        str(BUNDLE / "configs/inference.json"), workflow_type="infer", logging_file=False, bundle_root=str(BUNDLE)
    )
    workflow.initialize()
    keys = ("network_def", "inferer", "scaling", "to_scan_grid")
    network, inferer, scaling, (both, _, review) = map(workflow.parser.get_parsed_content, keys)
    network.load_state_dict(torch.load(BUNDLE / "models/model.pt", map_location="cpu", weights_only=True))
    network.eval()

    def measure(scan: np.ndarray, label: np.ndarray, scale: int) -> tuple[float, float]:
        affine = torch.diag(torch.tensor([scale, scale, scale, 1.0], dtype=torch.float64))
        channels = np.stack([block_means(channel, scale) for channel in scan])
        data = scaling({"image": MetaTensor(torch.tensor(channels.copy(), dtype=torch.float32), affine=affine)})
        with torch.no_grad():
            predictions = inferer(data["image"][None], network)
        data["pred"] = {key: logits[0] for key, logits in predictions.items()}
        prediction = review(both(data))["pred"]
        truth = block_means((label > 0).astype(float), scale) > 0.5
        return prediction.meta["doubt"], whole_tumor_dice(prediction.numpy().argmax(axis=0) > 0, truth)

    done = set()
    if args.results.exists():
        with open(args.results, newline="") as file:
            done = {(row["case"], row["scale"], row["kind"]) for row in csv.DictReader(file)}
    modalities = workflow.parser.get_parsed_content("modalities")
    items = labelled_datalist(args.dataset_dir, str(BUNDLE / "configs/splits.json"), "validation", modalities)
    with open(args.results, "a", newline="") as file:
        writer = csv.writer(file)
        if not done:
            writer.writerow(COLUMNS)
        for scale in sorted(args.scales, reverse=True):
            for item in items:
                name = Path(item["label"]).name.split(".")[0]
                scan = nib.as_closest_canonical(nib.load(item["image"])).get_fdata(dtype=np.float32)
                label = np.asarray(nib.as_closest_canonical(nib.load(item["label"])).dataobj)
                scan = np.moveaxis(scan, -1, 0)
                for kind, wrong, its_label in (("as it is", scan, label), *spoilt(scan, label)):
                    if (name, str(scale), kind) not in done:
                        doubt, dice = measure(wrong, its_label, scale)
                        writer.writerow([name, scale, kind, f"{doubt:.4f}", f"{dice:.4f}"])
                        file.flush()
    print_table(args.results)


def print_table(path: Path) -> None:
    """Prints the range of doubt and the mean Dice of each kind and voxel size."""
    cells = defaultdict(list)
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            cells[row["kind"].split(":")[0], int(row["scale"])].append((float(row["doubt"]), float(row["wt_dice"])))
    scales = sorted({scale for _, scale in cells})
    print(f"| | {' | '.join(f'{scale} mm' for scale in scales)} |\n|{' --- |' * (len(scales) + 1)}")
    for kind in dict.fromkeys(kind for kind, _ in cells):
        texts = []
        for scale in scales:
            doubts, dices = zip(*cells[kind, scale]) if cells[kind, scale] else ((), ())
            mean = f"{min(doubts):.2f}–{max(doubts):.2f}, WT {np.mean(dices):.2f}" if doubts else ""
            texts.append(f"{len(doubts)}: {mean}")
        print(f"| {kind} | {' | '.join(texts)} |")


if __name__ == "__main__":
    main()
