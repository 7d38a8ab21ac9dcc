"""How often wrong scans are warned of: the table under "What is warned of" in the hippocampus bundle's documentation.

    python docs/experiment/scripts/doubt.py --dataset_dir Task04_Hippocampus [--every 14]

Makes scans of 1, 2 and 4 mm of validation volumes, as they are and spoilt in several ways, and prints for each way how
many the shipped network doubts more than its limit, and how many have any reason to be reviewed. All volumes of
the split are tried as they are, every N-th spoilt. Some minutes on one core.
"""

from __future__ import annotations

import argparse
import itertools
import logging
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigWorkflow
from monai.data import MetaTensor
from scipy.ndimage import rotate

from rare_unet_networks.data import labelled_datalist

BUNDLE = Path(__file__).parents[3] / "bundles/hippocampus_mri_segmentation"
PLANES = ((0, 1), (1, 2), (0, 2))


def block_means(scan: np.ndarray, step: int) -> np.ndarray:
    """Means of blocks; the last ones are filled up with the border's voxels."""
    scan = np.pad(scan, [(0, -n % step) for n in scan.shape], mode="edge")
    return scan.reshape([v for n in scan.shape for v in (n // step, step)]).mean(axis=(1, 3, 5))


def spoilt(scan: np.ndarray, label: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Wrong scans made from a right one, by kind."""
    for axes in itertools.permutations(range(3)):
        for flips in itertools.product((1, -1), repeat=3):
            if axes != (0, 1, 2) or flips[1:] != (1, 1):  # mirrored left to right it would be right
                yield "header with wrong axes", scan.transpose(axes)[tuple(slice(None, None, f) for f in flips)]
    yield "inverted contrast", scan.max() - scan
    yield "noise", np.random.default_rng(0).normal(size=scan.shape)
    for angle, plane in itertools.product((20, 45), PLANES):
        yield f"turned by {angle}°", rotate(scan, angle, axes=plane, reshape=False, order=1, mode="nearest")
    structure = np.argwhere(label > 0)
    middle = (structure.min(axis=0) + structure.max(axis=0)) // 2
    for axis in range(3):
        yield "cut in half", scan.take(range(middle[axis]), axis=axis)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--every", type=int, default=14)
    args = parser.parse_args()
    workflow = ConfigWorkflow(
        str(BUNDLE / "configs/inference.json"), workflow_type="infer", logging_file=False, bundle_root=str(BUNDLE)
    )
    workflow.initialize()
    logging.disable(logging.WARNING)
    keys = ("network_def", "inferer", "scaling", "to_scan_grid", "doubt_limit")
    network, inferer, scaling, (both, _, review), limits = map(workflow.parser.get_parsed_content, keys)
    network.load_state_dict(torch.load(BUNDLE / "models/model.pt", map_location="cpu", weights_only=True))
    network.eval()

    def reviewed(scan: np.ndarray, step: int) -> tuple[float, list[str]]:
        affine = torch.diag(torch.tensor([step, step, step, 1.0], dtype=torch.float64))
        image = MetaTensor(torch.tensor(block_means(scan, step).copy(), dtype=torch.float32)[None], affine=affine)
        data = scaling({"image": image})
        with torch.no_grad():
            predictions = inferer(data["image"][None], network)
        data["pred"] = {key: logits[0] for key, logits in predictions.items()}
        meta = review(both(data))["pred"].meta
        return meta["doubt"], meta["review"]

    doubts, reviews = defaultdict(list), defaultdict(int)
    items = labelled_datalist(args.dataset_dir, str(BUNDLE / "configs/splits.json"), "validation")
    for number, item in enumerate(items):
        scan, label = (nib.as_closest_canonical(nib.load(item[key])).get_fdata() for key in ("image", "label"))
        kinds = [("as they are", scan), *(spoilt(scan, label) if number % args.every == 0 else ())]
        for (kind, changed), level in itertools.product(kinds, range(3)):
            doubt, reasons = reviewed(changed, 2**level)
            doubts[kind, level].append(doubt)
            reviews[kind, level] += bool(reasons)
    print("| | 1 mm | 2 mm | 4 mm |\n| --- | --- | --- | --- |")
    for kind in dict.fromkeys(kind for kind, _ in doubts):
        cells = []
        for level in range(3):
            values = doubts[kind, level]
            above = sum(value > limits[level] for value in values)
            span = f"{min(values):.2f}–{max(values):.2f}"
            cells.append(f"{above} of {len(values)} ({span}), {reviews[kind, level]} with any reason")
        print(f"| {kind} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
