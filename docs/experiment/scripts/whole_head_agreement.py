"""How well the segmentations of whole heads agree with hippodeep's masks: the second table of docs/whole_heads.md.

    python docs/experiment/scripts/whole_head_agreement.py ../shared/data/WholeHead [--boxes | --pieces]

The ten heads that nothing was trained on are segmented at their own resolution and made 2 mm, 4 mm, 2×2×5 mm and, the
three fine ones, 1×1×5 mm. The 1 mm probabilities are brought to the grid of the mask, and the Dice of the whole
hippocampus is the mean of both sides. The masks are a tool's, no truth. --boxes moves the box by 4 mm along each axis,
and makes it 4 mm smaller and larger, and prints the Dice with the prediction of the box as it is. --pieces compares
all pieces with the largest one of each side, in the box as it is and in one that is 14 mm wider on each side.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from head_scans import Head, head_names, load_head
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose, SpatialResample

from rare_unet_networks.data import Acquisition
from rare_unet_networks.networks import load_weights
from rare_unet_networks.transforms import KeepLargestPieced, ResampleToBothGridsd, simulate_acquisition
from rare_unet_networks.utils.tables import write_rows

BUNDLE = Path(__file__).parents[3] / "bundles/hippocampus_mri_segmentation"
SPACINGS = {
    "own": None,
    "2 mm": (2.0,) * 3,
    "4 mm": (4.0,) * 3,
    "2×2×5 mm": (2.0, 2.0, 5.0),
    "1×1×5 mm": (1.0, 1.0, 5.0),
}
COLUMNS = ("head", "spacing", "left", "right", "seconds", "turned", "review")
MOVE = 4.0  # mm
WIDER = 28.0  # mm, 14 on each side


class Segmenter:
    """The bundle's inference on tensors."""

    def __init__(self, checkpoint: Path, localiser: Path) -> None:
        config = ConfigParser(ConfigParser.load_config_file(BUNDLE / "configs/inference.json"))
        config["bundle_root"], config["field_of_view"] = str(BUNDLE), "head"
        config["localiser"]["checkpoint"] = str(localiser)
        self.network = config.get_parsed_content("network_def").eval()
        load_weights(checkpoint, self.network)
        self.prepare = Compose(config.get_parsed_content("prepare"))
        self.inferer = config.get_parsed_content("inferer")
        self.both = ResampleToBothGridsd("pred")
        self.keep_largest = KeepLargestPieced("pred", config.get_parsed_content("class_names"))

    @torch.no_grad()
    def __call__(self, scan: MetaTensor) -> tuple[MetaTensor, object]:
        """Probabilities at 1 mm in the box of both hippocampi, and the notes about the head."""
        image = self.prepare({"image": scan})["image"]
        predictions = self.inferer(image[None], self.network)
        head = next(iter(predictions.values())).meta["head"]
        predictions = {
            key: MetaTensor(value.as_tensor()[0]).copy_meta_from(value) for key, value in predictions.items()
        }
        return self.both({"image": image, "pred": predictions})["pred_fine"], head


def labels_on(mask: MetaTensor, probabilities: MetaTensor) -> torch.Tensor:
    """Labels of the whole hippocampus (1 left, 2 right) on the grid of the mask: means over its voxels."""
    whole = torch.stack([probabilities[1:3].sum(dim=0), probabilities[3:5].sum(dim=0)]).as_tensor()
    affine, size = np.asarray(mask.affine, dtype=np.float64), np.array(mask.shape[1:])
    steps = np.maximum(1, np.round(np.linalg.norm(affine[:3, :3], axis=0)).astype(int))
    fine = affine @ np.diag([*(1 / steps), 1.0])
    fine[:3, 3] += affine[:3, :3] @ ((1 / steps - 1) / 2)
    resample = SpatialResample(mode="bilinear", padding_mode="zeros", align_corners=False, dtype=torch.float32)
    on_fine = resample(MetaTensor(whole, affine=probabilities.affine), torch.from_numpy(fine), (size * steps).tolist())
    means = torch.nn.functional.avg_pool3d(on_fine.as_tensor(), steps.tolist())
    left, right = means
    return torch.where(torch.maximum(left, right) > 0.5, torch.where(left > right, 1, 2), 0)


def dice(labels: torch.Tensor, others: torch.Tensor) -> list[float]:
    """Dice of the left and of the right one."""
    values = []
    for label in (1, 2):
        a, b = labels == label, others == label
        values.append(float(2 * (a & b).sum() / (a.sum() + b.sum()).clamp(min=1)))
    return values


def agreement(head: Head, segment: Segmenter) -> list[dict]:
    rows = []
    for name, spacing in SPACINGS.items():
        if name == "1×1×5 mm" and not head.is_fine:
            continue
        scan = head.image if spacing is None else simulate_acquisition(head.image, Acquisition(spacing))
        start = time.perf_counter()
        probabilities, notes = segment(scan)
        seconds = time.perf_counter() - start
        left, right = dice(labels_on(head.mask, probabilities), head.mask[0].as_tensor())
        row = {"head": head.name, "spacing": name, "left": left, "right": right, "seconds": seconds}
        rows.append({**row, "turned": notes.turned, "review": "; ".join(notes.reasons)})
    return rows


def boxes(head: Head, segment: Segmenter) -> list[dict]:
    """Dice between predictions of a moved or resized box and that of the box as it is."""
    template, rows = segment.inferer.template, []
    unmoved = labels_on(head.mask, segment(head.image)[0])
    changes: dict[str, Callable] = {}
    for axis, sign in itertools.product(range(3), (-1, 1)):
        offset = tuple(o + sign * MOVE * (i == axis) for i, o in enumerate(template.offset))
        changes[f"moved {sign * MOVE:+g} mm, axis {axis}"] = replace(template, offset=offset)
    for sign in (-1, 1):
        changes[f"{sign * MOVE:+g} mm"] = replace(template, size=tuple(s + sign * MOVE for s in template.size))
    for name, changed in changes.items():
        segment.inferer.template = changed
        left, right = dice(labels_on(head.mask, segment(head.image)[0]), unmoved)
        rows.append({"head": head.name, "spacing": name, "left": left, "right": right})
    segment.inferer.template = template
    return rows


def pieces(head: Head, segment: Segmenter) -> list[dict]:
    """Dice with the mask of all pieces and of the largest of each side, and what the latter leaves out."""
    template, rows = segment.inferer.template, []
    for box, size in (("box", template.size), ("wide box", tuple(s + WIDER for s in template.size))):
        segment.inferer.template = replace(template, size=size)
        probabilities, _ = segment(head.image)
        classes = probabilities.argmax(dim=0, keepdim=True)
        largest = segment.keep_largest({"pred": classes})["pred"]
        removed = largest.meta["removed"]
        for name, labels in (("all pieces", classes), ("largest piece", largest)):
            values = probabilities.clone()
            values[1:] *= (labels > 0).as_tensor()
            left, right = dice(labels_on(head.mask, values), head.mask[0].as_tensor())
            row = {"head": head.name, "spacing": f"{box}, {name}", "left": left, "right": right}
            rows.append({**row, "review": f"{removed['pieces']} pieces, {removed['percent']:.1f} % removed"})
    segment.inferer.template = template
    return rows


def table(rows: list[dict]) -> list[str]:
    lines = ["| | heads | mean | least | seconds |", "|---|---|---|---|---|"]
    for name in dict.fromkeys(row["spacing"] for row in rows):
        chosen = [row for row in rows if row["spacing"] == name]
        means = [(row["left"] + row["right"]) / 2 for row in chosen]
        seconds = [row["seconds"] for row in chosen if "seconds" in row]
        time_text = f"{np.mean(seconds):.1f}" if seconds else ""
        lines.append(f"| {name} | {len(chosen)} | {np.mean(means):.3f} | {min(means):.3f} | {time_text} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset_dir", type=Path)
    parser.add_argument("--checkpoint", type=Path, default=BUNDLE / "models/model.pt")
    parser.add_argument("--localiser", type=Path, default=BUNDLE / "models/localiser.pt")
    parser.add_argument("--split", default="test", choices=("test", "train"))
    parser.add_argument("--boxes", action="store_true")
    parser.add_argument("--pieces", action="store_true")
    parser.add_argument("--csv", type=Path)
    args = parser.parse_args()
    logging.getLogger("rare_unet_networks").setLevel(logging.ERROR)
    segment, rows = Segmenter(args.checkpoint, args.localiser), []
    for name in head_names(args.split):
        head = load_head(args.dataset_dir, name)
        for row in (pieces if args.pieces else boxes if args.boxes else agreement)(head, segment):
            rows.append(row)
            print(
                {key: f"{value:.3f}" if isinstance(value, float) else value for key, value in row.items()}, flush=True
            )
    print("\n".join(table(rows)))
    if args.csv:
        write_rows(args.csv, COLUMNS, rows)


if __name__ == "__main__":
    main()
