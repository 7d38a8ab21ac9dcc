"""Draws docs/whole_head.png: the sample heads with both segmented hippocampi.

rare-unet hippocampus bundles/hippocampus_mri_segmentation/sample/heads -o runs/heads
pip install '.[docs]' && python docs/experiment/scripts/make_head_figure.py runs/heads
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
from matplotlib.patches import Patch

from rare_unet_networks.utils.colours import label_colour

ROOT = Path(__file__).parents[3]
HEADS = ROOT / "bundles/hippocampus_mri_segmentation/sample/heads"
NAMES = {"icbm152_head_1mm": "1×1×1 mm", "icbm152_head_1x1x5mm": "1×1×5 mm"}
CLASSES = ("left anterior", "left posterior", "right anterior", "right posterior")
AXES = {"sagittal": 0, "coronal": 1, "axial": 2}


def draw(axis: plt.Axes, scan: nib.Nifti1Image, labels: np.ndarray, number: int) -> None:
    """One plane through the left hippocampus, with contours of all classes."""
    spacing = np.delete(scan.header.get_zooms(), number)
    index = round(float(np.argwhere(np.isin(labels, (1, 2)))[:, number].mean()))
    plane, classes = (np.asarray(x).take(index, axis=number).T for x in (scan.dataobj, labels))
    axis.imshow(plane, cmap="gray", origin="lower", aspect=spacing[1] / spacing[0], interpolation="nearest")
    for label in range(1, len(CLASSES) + 1):
        if (classes == label).any():
            axis.contour(classes == label, levels=[0.5], colors=label_colour(label), linewidths=1.2)
    axis.invert_xaxis()  # as in the report: the patient's right and the front are on the left
    axis.set(xticks=[], yticks=[])


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predictions", type=Path, help="folder of the segmentations")
    args = parser.parse_args()
    figure, axes = plt.subplots(2, 3, figsize=(9.5, 6.6), layout="constrained")
    for row, (name, title) in zip(axes, NAMES.items()):
        scan = nib.load(HEADS / f"{name}.nii.gz")
        labels = np.asarray(nib.load(args.predictions / f"{name}_seg.nii.gz").dataobj)
        for axis, (plane, number) in zip(row, AXES.items()):
            draw(axis, scan, labels, number)
            axis.set_title(plane, fontsize=9)
        row[0].set_ylabel(title, fontsize=11)
    handles = [Patch(color=label_colour(label), label=name) for label, name in enumerate(CLASSES, start=1)]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9)
    figure.savefig(ROOT / "docs/whole_head.png", dpi=90)
    print(ROOT / "docs/whole_head.png")


if __name__ == "__main__":
    main()
