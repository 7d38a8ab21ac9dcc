"""Figures 4, 5 and 6 of the paper for the documents of the experiments; drawn by make_experiment.py."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
from experiment_tasks import Task
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch
from monai.transforms import Compose, LoadImaged

from rare_unet_networks.transforms.low_resolution import SimulateLowResolutiond


def show_labels(
    axis: Axes, labels: np.ndarray, colours: Sequence[str], alpha: float = 0.6, origin: str = "lower"
) -> None:
    """A slice of a label map, its first axis to the right, over what the axis shows already."""
    overlay = np.ma.masked_equal(labels.T, 0)
    axis.imshow(
        overlay,
        cmap=ListedColormap(colours),
        vmin=1,
        vmax=len(colours),
        alpha=alpha,
        origin=origin,
        interpolation="nearest",
    )


def coarse_slice(task: Task, level: int, index: int) -> np.ndarray:
    """The slice of the task's case as a scan of that resolution shows it (its first channel), on the 1 mm grid."""
    read = Compose([LoadImaged("image", ensure_channel_first=True), SimulateLowResolutiond("image")])
    coarse = read({"image": task.file("imagesTr"), "level": level})["image"][0].numpy()
    fine_size, step = nib.load(task.file("labelsTr")).shape, 2**level
    margins = [(n * step - m) // 2 for n, m in zip(coarse.shape, fine_size)]
    plane = coarse.take((index + margins[task.axis]) // step, axis=task.axis)
    plane = plane.repeat(step, axis=0).repeat(step, axis=1)
    (first, n), (second, m) = (axis for i, axis in enumerate(zip(margins, fine_size)) if i != task.axis)
    return plane[first : first + n, second : second + m]


def draw_cases(task: Task, answers: Mapping[str, Mapping[str, np.ndarray]], index: int, path: Path) -> None:
    """Figures 4 and 5: one case, a row per model below the scan, a column per scale, all on the 1 mm grid."""
    label = np.asarray(nib.load(task.file("labelsTr")).dataobj).take(index, axis=task.axis)
    rows = len(answers) + 1
    columns = len(task.scales)
    figure, axes = plt.subplots(
        rows, columns, figsize=(2.25 * columns, 2.1 * rows), layout="constrained", squeeze=False
    )
    for column, scale in enumerate(task.scales):
        image = coarse_slice(task, column, index)
        for row, (title, slices) in enumerate({"scan, outline of the label": {}, **answers}.items()):
            axis = axes[row, column]
            axis.set(xticks=[], yticks=[])
            axis.imshow(image.T, cmap="gray", origin=task.origin, interpolation="nearest")
            if scale in slices:
                show_labels(axis, slices[scale], task.colours, origin=task.origin)
            elif row:
                axis.text(0.5, 0.5, "–", transform=axis.transAxes, ha="center", color="white")
            axis.contour(label.T > 0, levels=[0.5], colors="white", linewidths=0.8)
            if column == 0:
                axis.set_ylabel(textwrap.fill(title, 22), fontsize=7)
            if row == 0:
                axis.set_title(f"{2**column} mm", fontsize=10)
    handles = [Patch(color=colour, label=name) for colour, name in zip(task.colours, task.classes)]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8)
    figure.suptitle(f"{task.case}, answers at 1 mm; outline of the label in white", fontsize=10)
    figure.savefig(path, dpi=100)
    print(path)


def draw_time(
    task: Task, models: Mapping[str, tuple[str, dict[str, str], Mapping]], times: Mapping[tuple, Any], path: Path
) -> None:
    """Figure 6: Dice at 1 mm against the network's time, on the fewest threads timed; area = parameters on the path."""
    threads = min((key[3] for key in times if key[3].isdigit()), key=int)
    figure, axis = plt.subplots(figsize=(7.5, 4.8), layout="constrained")
    for title, bench, summary in models.values():
        points = []
        for scale in task.scales:
            row = times.get((bench["model"], scale, bench["output"], threads, "network"))
            score = summary.get(("dice", "full", "mean", scale))
            if row and score:
                points.append((1000 * float(row["seconds"]), score["mean"], float(row["parameters"]), scale))
        if not points:
            continue
        x, y, size, names = zip(*points)
        line = axis.plot(x, y, alpha=0.4)[0]
        axis.scatter(x, y, s=[p / 3e4 for p in size], alpha=0.7, color=line.get_color(), label=title)
        for point in zip(x, y, names):
            axis.annotate({"1": "1", "0.5": "1/2", "0.25": "1/4", "0.125": "1/8"}[point[2]], point[:2], fontsize=8)
    axis.set(xscale="log", xlabel=f"ms, network alone, {threads} thread(s)", ylabel="Dice on the 1 mm grid")
    axis.legend(fontsize=8, loc="best")
    axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    print(path)
