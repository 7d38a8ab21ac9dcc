"""Makes the shipped weights from trained ones: shifts each head's background by a constant, and stores float16.

    python tools/calibrate.py --checkpoint runs/mine/model.pt --dataset_dir Task04_Hippocampus --output model.pt

Half of the training loss is soft Dice without background, which pays for structure where the network is in doubt: the
coarser the scan, the larger the answers. One number per head, added to the background's logit and put into the bias of
its last convolution, takes that back. It is the one of 0, 0.1, … 1.5 with the best class mean Dice on the validation
volumes, native heads on the coarse grid, the others at 1 mm. Seven numbers in all; nothing else is trained.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import torch
from monai.bundle import ConfigWorkflow
from monai.transforms import ResampleToMatch

from rare_unet_networks import dice_per_class

BUNDLE = Path(__file__).parents[1] / "bundles/hippocampus_mri_segmentation"
OFFSETS = [round(0.1 * i, 1) for i in range(16)]


def scores(workflow: ConfigWorkflow, network: torch.nn.Module) -> dict[tuple[str, int], dict[float, float]]:
    """Class mean Dice by (grid, level) and offset."""
    dataset, inferer = (workflow.parser.get_parsed_content(key) for key in ("dataset", "inferer"))
    inferer.side = "as_is"  # the validation scans show the side the network knows
    found: dict = defaultdict(lambda: defaultdict(list))
    for item in dataset:
        with torch.no_grad():
            logits = inferer(item["image"][None], network)
        pairs = {
            "native": (logits["pred"][0], item["label"]),
            "full": (ResampleToMatch(mode="nearest")(logits["pred_full"][0], item["label_full"]), item["label_full"]),
        }
        for grid, (answer, label) in pairs.items():
            for offset in OFFSETS:
                shifted = answer.as_tensor().clone()
                shifted[0] += offset
                dice = dice_per_class(shifted.argmax(dim=0, keepdim=True), label.as_tensor(), len(shifted))
                found[grid, int(item["level"])][offset].append(dice)
    means = {}
    for key, by_offset in found.items():
        # The mean of the tables: over cases for each class, then over classes; d == d leaves NaN out.
        means[key] = {o: fmean(fmean(d for d in c if d == d) for c in zip(*v)) for o, v in by_offset.items()}
    return means


def shift(state: dict[str, torch.Tensor], key: str, num_classes: int, offset: float) -> None:
    """Adds to the background's part of a head's bias; a sub-pixel head has one entry per class and fine voxel."""
    state[key][: len(state[key]) // num_classes] += offset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--split", default="validation")
    args = parser.parse_args()
    workflow = ConfigWorkflow(
        str(BUNDLE / "configs/evaluate.json"),
        workflow_type="infer",
        logging_file=False,
        bundle_root=str(BUNDLE),
        dataset_dir=args.dataset_dir,
        split=args.split,
    )
    workflow.initialize()
    network = workflow.parser.get_parsed_content("network_def").eval()
    state = torch.load(args.checkpoint, map_location="cpu", weights_only=True)
    network.load_state_dict(state)
    num_classes = len(workflow.parser.get_parsed_content("class_names")) + 1
    for (grid, level), by_offset in sorted(scores(workflow, network).items()):
        best = max(by_offset, key=by_offset.get)
        if grid == "native":
            shift(state, f"heads.{level}.conv.bias", num_classes, best)
        elif level:
            shift(state, f"full_heads.{level - 1}.conv_block.1.conv.bias", num_classes, best)
        print(f"{grid}, level {level}: {best:+.1f}, Dice {by_offset[0.0]:.4f} -> {by_offset[best]:.4f}")
    torch.save({key: value.half() for key, value in state.items()}, args.output)
    print(args.output)


if __name__ == "__main__":
    main()
