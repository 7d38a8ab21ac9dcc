"""Draws docs/four_resolutions.png: one labelled scan at four resolutions and what the bundle makes of it.

pip install '.[docs]' && python docs/experiment/scripts/make_figure.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from experiment_figures import show_labels
from experiment_tasks import HIPPOCAMPUS, ROOT
from ignite.engine import Events
from monai.bundle import ConfigWorkflow

BUNDLE = HIPPOCAMPUS.bundle


def answers(dataset: Path, output: Path, case: str) -> list[dict[str, np.ndarray]]:
    """Image, answer and label of one case at every level, by the very code of ``run evaluating``."""
    workflow = ConfigWorkflow(
        [str(BUNDLE / "configs" / name) for name in ("inference.json", "evaluate.json")],
        workflow_type="infer",
        logging_file=False,
        bundle_root=str(BUNDLE),
        dataset_dir=str(dataset),
        output_dir=str(output),
    )
    workflow.initialize()
    evaluator, kept = workflow.parser.get_parsed_content("evaluator"), []

    @evaluator.on(Events.ITERATION_COMPLETED)
    def keep(engine) -> None:
        item, result = engine.state.batch[0], engine.state.output[0]
        if item["case"] == case:
            arrays = {"image": item["image"], "answer": result["pred"], "label": item["label"]}
            arrays["fine"], arrays["fine_label"] = result["pred_fine"], item["label_fine"]
            kept.append({name: np.asarray(a[0]) for name, a in arrays.items()} | {"level": int(item["level"])})

    workflow.run()
    return sorted(kept, key=lambda item: item["level"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", type=Path, default=HIPPOCAMPUS.dataset)
    parser.add_argument("--case", default=HIPPOCAMPUS.case)
    parser.add_argument("--output_dir", type=Path, default=BUNDLE / "output/figure")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs/four_resolutions.png")
    args = parser.parse_args()
    items = answers(args.dataset_dir, args.output_dir, args.case)
    figure, axes = plt.subplots(4, len(items), figsize=(2.4 * len(items), 8.8), layout="constrained")
    # The sagittal slice, in the finest grid, that shows most of the structure.
    position = (np.asarray(items[0]["label"] > 0).sum(axis=(1, 2)).argmax() + 0.5) / items[0]["label"].shape[0]
    for column, item in zip(axes.T, items):
        index = int(position * item["image"].shape[0])
        for axis, name in zip(column, ("image", "answer", "label")):
            axis.imshow(item["image"][index].T, cmap="gray", origin="lower", interpolation="nearest")
            if name != "image":
                show_labels(axis, item[name][index], HIPPOCAMPUS.colours)
            axis.set(xticks=[], yticks=[])
        index = int(position * item["fine"].shape[0])
        show_labels(column[3], item["fine"][index], HIPPOCAMPUS.colours, alpha=1)
        column[3].contour(item["fine_label"][index].T > 0, levels=[0.5], colors="white", linewidths=0.8)
        column[3].set(xticks=[], yticks=[], facecolor="black")
        mm = 2 ** item["level"]
        column[0].set_title(f"{mm} mm: enters level {item['level']}", fontsize=10)
    names = ("scan", "RARE-UNet", "label\n(majority of blocks)", "RARE-UNet at 1 mm\n(outline: label)")
    for axis, name in zip(axes[:, 0], names):
        axis.set_ylabel(name, fontsize=10)
    figure.suptitle(f"{args.case}, sagittal: anterior (orange) and posterior (blue) hippocampus", fontsize=11)
    figure.savefig(args.figure, dpi=110)
    print(args.figure)


if __name__ == "__main__":
    main()
