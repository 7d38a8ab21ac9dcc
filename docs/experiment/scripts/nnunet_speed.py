"""Times nnU-Net's own predictor on the crop of 1 mm, for the table of docs/speed.md; runs in nnU-Net's environment.

    .nnunet/bin/python docs/experiment/scripts/nnunet_speed.py nn/preprocessed/Dataset004_Hippocampus

The network is that of the plans. Its weights are random, because time does not depend on them. A prediction is what
nnU-Net does from an array to a label map: preprocessing, sliding window, resampling. Reading and writing are left out.
Medians of ``--runs`` after one to warm up. ``speed.py --parts`` without a part then writes the tables.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path
from statistics import median

import nibabel as nib
import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from speed_tables import MIRRORING, NNUNET

ROOT = Path(__file__).parents[3]
CROP = ROOT / "bundles/hippocampus_mri_segmentation/sample/images/icbm152_left_1mm.nii.gz"
RESULTS = ROOT / "docs/experiment/hippocampus/speed.csv"
PART = "also nnU-Net"


def predictor(folder: Path, mirroring: bool) -> nnUNetPredictor:
    """nnU-Net's predictor with its default settings, on the CPU, for a preprocessed dataset."""
    plans = PlansManager(str(folder / "nnUNetPlans.json"))
    dataset = json.loads((folder / "dataset.json").read_text())
    setup = plans.get_configuration("3d_fullres")
    network = get_network_from_plans(
        setup.network_arch_class_name,
        setup.network_arch_init_kwargs,
        setup.network_arch_init_kwargs_req_import,
        determine_num_input_channels(plans, setup, dataset),
        plans.get_label_manager(dataset).num_segmentation_heads,
        deep_supervision=False,
    )
    made = nnUNetPredictor(use_mirroring=mirroring, device=torch.device("cpu"), perform_everything_on_device=False)
    weights = [network.state_dict()]
    made.manual_initialization(network, plans, setup, weights, dataset, "nnUNetTrainer", (0, 1, 2))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset_dir", type=Path, help="what nnUNetv2_plan_and_preprocess wrote")
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    if not (args.dataset_dir / "nnUNetPlans.json").is_file():
        parser.error(f"dataset_dir must have nnUNetPlans.json, {args.dataset_dir} has not")
    scan = nib.load(CROP)
    voxels = np.asarray(scan.dataobj, dtype=np.float32).T[None]  # nnU-Net's order of axes
    spacing = {"spacing": [float(v) for v in scan.header.get_zooms()[::-1]]}
    predictors = {name: predictor(args.dataset_dir, name == "mirroring") for name in MIRRORING}
    seconds: dict[str, list[float]] = {name: [] for name in predictors}
    for run in range(args.runs + 1):
        for name, made in predictors.items():
            start = time.perf_counter()
            made.predict_single_npy_array(voxels, dict(spacing))
            if run:
                seconds[name].append(time.perf_counter() - start)
    with open(RESULTS, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["part"] != PART]
    for name, measured in seconds.items():
        row = dict.fromkeys(rows[0], "")
        row |= {"part": PART, "scan": "1 mm", "what": NNUNET.format(name), "runtime": "eager"}
        row |= {"seconds": f"{median(measured):.4f}", "clock": f"time, {torch.get_num_threads()} thread(s)"}
        rows.append(row)
        print(f"{row['what']}: {row['seconds']} s")
    with open(RESULTS, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
