"""Makes the shipped weights from trained ones: shifts each head's background by a constant, and stores float16.

    python tools/calibrate.py --checkpoint runs/mine/model.pt --dataset_dir Task04_Hippocampus --output model.pt

Half of the training loss is soft Dice without background, which pays for structure where the network is in doubt: the
coarser the scan, the larger the answers. One number per head, added to the background's logit and put into the bias of
its last convolution, takes that back. It is the one of 0, 0.1, … 1.5 with the best class mean Dice on the validation
volumes, native heads on the coarse grid, the others at 1 mm; a head that serves several scales gets the one with the
best mean over them. Nothing else is trained. ``--delta docs/experiment/overlays/hippocampus/unet.json`` does the same
for a baseline. ``--as_is``
stores float16 and leaves the heads alone.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

import torch
from monai.bundle import ConfigWorkflow
from monai.transforms import ResampleToMatch
from nibabel.orientations import aff2axcodes

from rare_unet_networks.metrics.multi_scale import dice_per_class
from rare_unet_networks.networks import RAREUNet

BUNDLE = Path(__file__).parents[1] / "bundles/hippocampus_mri_segmentation"
OFFSETS = [round(0.1 * i, 1) for i in range(16)]


def bias_of(network: RAREUNet, grid: str, level: int) -> str:
    """Name of the bias that decides the answers of a level's scans on a grid."""
    if grid == "scan" or network.num_levels == 1 or level == 0:
        return f"heads.{min(level, network.num_levels - 1)}.conv.bias"
    return f"full_heads.{level - 1}.conv_block.1.conv.bias"


def scores(workflow: ConfigWorkflow, network: RAREUNet) -> dict[str, dict[float, float]]:
    """Class mean Dice by bias and offset, averaged over what the bias decides.

    Raises:
        ValueError: when a scan is not stored in RAS order: answers and labels are compared voxel by voxel.
    """
    dataset, inferer = (workflow.parser.get_parsed_content(key) for key in ("dataset", "inferer"))
    inferer.side = "left"  # the validation scans show the side the network knows
    found: dict = defaultdict(lambda: defaultdict(list))
    for item in dataset:
        if aff2axcodes(item["label"].affine) != ("R", "A", "S"):
            raise ValueError(f"{item['case']} must be stored in RAS order, got {aff2axcodes(item['label'].affine)}.")
        with torch.no_grad():
            logits = inferer(item["image"][None], network)
        level = int(item["level"])
        answers = logits if isinstance(logits, Mapping) else {"pred_fine": logits}
        pairs = {"fine": (ResampleToMatch(mode="nearest")(answers["pred_fine"][0], item["label_fine"]), "label_fine")}
        if "pred" in answers:
            pairs["scan"] = (answers["pred"][0], "label")
        for grid, (answer, label) in pairs.items():
            for offset in OFFSETS:
                shifted = answer.as_tensor().clone()
                shifted[0] += offset
                dice = dice_per_class(shifted.argmax(dim=0, keepdim=True), item[label].as_tensor(), len(shifted))
                found[grid, level][offset].append(dice)
    means: dict = defaultdict(lambda: defaultdict(list))
    for (grid, level), by_offset in found.items():
        if grid == "fine" and level == 0 and ("scan", 0) in found:
            continue  # the same answer
        for offset, dice in by_offset.items():
            # The mean of the tables: over cases for each class, then over classes; d == d leaves NaN out.
            mean = fmean(fmean(d for d in of_class if d == d) for of_class in zip(*dice))
            means[bias_of(network, grid, level)][offset].append(mean)
    return {name: {offset: fmean(values) for offset, values in by.items()} for name, by in means.items()}


def shift(state: dict[str, torch.Tensor], name: str, num_classes: int, offset: float) -> None:
    """Adds to the background's part of a head's bias; a sub-pixel head has one entry per class and fine voxel."""
    state[name][: len(state[name]) // num_classes] += offset


def calibrate(state: dict[str, torch.Tensor], args: argparse.Namespace) -> None:
    """Shifts the background of every head of ``state`` by its best offset."""
    workflow = ConfigWorkflow(
        [*(str(BUNDLE / "configs" / name) for name in ("inference.json", "evaluate.json")), *args.delta],
        workflow_type="infer",
        logging_file=False,
        bundle_root=str(BUNDLE),
        dataset_dir=args.dataset_dir,
        split=args.split,
    )
    workflow.initialize()
    network = workflow.parser.get_parsed_content("network_def").eval()
    network.load_state_dict(state)
    num_classes = len(workflow.parser.get_parsed_content("class_names")) + 1
    for name, by_offset in sorted(scores(workflow, network).items()):
        best = max(by_offset, key=by_offset.get)
        shift(state, name, num_classes, best)
        print(f"{name}: {best:+.1f}, Dice {by_offset[0.0]:.4f} -> {by_offset[best]:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--dataset_dir", help="needed but for --as_is")
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--split", default="validation")
    parser.add_argument("--delta", action="append", default=[], help="overlay over evaluate.json")
    parser.add_argument("--as_is", action="store_true", help="do not calibrate")
    args = parser.parse_args()
    state = torch.load(args.checkpoint, map_location="cpu", weights_only=True)
    if not args.as_is:
        if args.dataset_dir is None:
            parser.error("--dataset_dir is needed to calibrate")
        calibrate(state, args)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    torch.save({key: value.half() for key, value in state.items()}, args.output)
    print(args.output)


if __name__ == "__main__":
    main()
