"""How much tumour the brain-tumour network sees where there is none: heads of one healthy hemisphere, seen twice.

    python docs/experiment/scripts/false_alarms.py --dataset_dir Task01_BrainTumour \\
        --output_dir runs/false_alarms [--split validation]

Of each case the half of the brain with less tumour is mirrored onto the other side; cases with tumour in both halves
are left out, what tumour the better half has is set to 0. The heads are segmented by the very code of ``run inferring``
at every scale. false_alarms.csv has the volume (ml) of each class; ``--keep`` also puts it where
docs/experiment/scripts/make_experiment.py reads it.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from experiment_tasks import BRAIN_TUMOR
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.transforms import Compose, LoadImaged, Orientationd, SaveImage

from rare_unet_networks.data import labelled_datalist
from rare_unet_networks.levels import ResolutionLevels, format_scale
from rare_unet_networks.transforms.hemisphere import mirror_healthy_hemisphere
from rare_unet_networks.transforms.low_resolution import SimulateLowResolutiond

BUNDLE = BRAIN_TUMOR.bundle


def heads(items: list[dict], folder: Path, levels: ResolutionLevels) -> int:
    """Writes ``<folder>/<scale>/<case>.nii.gz``; returns how many cases had a healthy half."""
    read = Compose(
        [
            LoadImaged(["image", "label"], ensure_channel_first=True),
            Orientationd(["image", "label"], "RAS", labels=None),
        ]
    )
    count = 0
    for item in items:
        data = read(item)
        head = mirror_healthy_hemisphere(data["image"], data["label"])
        if head is None:
            print(f"{item['case']}: tumour on both sides, left out")
            continue
        count += 1
        for level in range(levels.num_levels):
            scan = SimulateLowResolutiond("image")({"image": head, "level": level})["image"]
            path = folder / format_scale(level) / item["case"]
            path.parent.mkdir(parents=True, exist_ok=True)
            SaveImage(output_ext=".nii.gz", resample=False, print_log=False, channel_dim=0)(scan, filename=path)
    return count


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--dataset_dir", required=True)
    arguments.add_argument("--output_dir", required=True, type=Path)
    arguments.add_argument("--split", default="validation")
    arguments.add_argument("--keep", action="store_true", help="put the table into docs/experiment/brain_tumor")
    arguments.add_argument("--checkpoint", default=str(BUNDLE / "models/model.pt"))
    args = arguments.parse_args()
    if args.output_dir.exists():
        arguments.error(f"--output_dir must be a new folder, {args.output_dir} exists")
    items = labelled_datalist(args.dataset_dir, str(BUNDLE / "configs/splits.json"), args.split)
    parser = ConfigParser()
    parser.read_config(str(BUNDLE / "configs/inference.json"))
    levels = parser.get_parsed_content("levels")
    count = heads(items, args.output_dir / "heads", levels)
    rows = []
    for level in range(levels.num_levels):
        scale = format_scale(level)
        output = args.output_dir / "answers" / scale
        workflow = ConfigWorkflow(
            str(BUNDLE / "configs/inference.json"),
            workflow_type="infer",
            logging_file=False,
            bundle_root=str(BUNDLE),
            input=str(args.output_dir / "heads" / scale),
            output_dir=str(output),
            checkpoint=args.checkpoint,
            runtime="eager",
        )
        workflow.initialize()
        workflow.run()
        if failures := workflow.parser.get_parsed_content("evaluator").failures:
            raise SystemExit(f"{len(failures)} heads could not be segmented: {failures}")
        with open(output / "volumes.csv", newline="") as file:
            rows += [(r["case"], scale, r["class"], f"{float(r['mm3']) / 1000:.3f}") for r in csv.DictReader(file)]
    folders = [args.output_dir, *([BRAIN_TUMOR.results] if args.keep else [])]
    for folder in folders:
        with open(folder / "false_alarms.csv", "w", newline="") as file:
            csv.writer(file).writerows([("case", "scale", "class", "ml"), *rows])
    for level in range(levels.num_levels):
        scale = format_scale(level)
        total = sum(float(ml) for _, s, _, ml in rows if s == scale)
        print(f"scale {scale}: {total / max(count, 1):.2f} ml a head, {count} heads")


if __name__ == "__main__":
    main()
