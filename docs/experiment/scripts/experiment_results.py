"""The results in docs/experiment: how they are read, how new ones are taken in."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from experiment_tasks import HIPPOCAMPUS, TASKS, Task

from rare_unet_networks.baselines import read_rows
from rare_unet_networks.metrics.summary import summarise

# Of the hippocampus alone; the first is what differences are taken from.
PAPER_SPLIT = {
    "rare_unet_finetuned": "ours, fine-tuned on trilinear scans",
    "rare_unet": "ours, trained on block means",
    "rare_unet_means": "ours, trained and scored on block means",
}


@cache
def listed(task: Task, folder: str = "") -> dict[str, dict[str, Any]]:
    """All entries of a models.json, those without results too: of the models, or of ``folder="ablations"``."""
    path = task.results / folder / "models.json"
    return json.loads(path.read_text()) if path.exists() else {}


@cache
def models(task: Task, folder: str = "") -> dict[str, dict[str, Any]]:
    """Those whose results are there, by name, in the order of models.json."""
    there = task.results / folder
    return {n: entry for n, entry in listed(task, folder).items() if (there / n / "per_case.csv").exists()}


def places() -> dict[str, tuple[Task, str]]:
    """Where results may be added, relative to docs/experiment: the task, and the folder in its results."""
    found = {}
    for task in TASKS.values():
        names = [*listed(task), *(f"ablations/{n}" for n in listed(task, "ablations"))]
        names += [f"paper_split/{n}" for n in PAPER_SPLIT] if task is HIPPOCAMPUS else []
        found.update({f"{task.name}/{name}": (task, name) for name in names})
    return found


@cache
def rows(task: Task, name: str) -> tuple[dict[str, Any], ...]:
    return tuple(read_rows(task.results / name / "per_case.csv"))


@cache
def summary(task: Task, name: str) -> dict[tuple[str, str, str, str], dict[str, Any]]:
    """Lines by (measure, grid, class, scale); a network of one scale has no average over scales."""
    found = summarise(rows(task, name), task.regions)
    lines = {(s["measure"], s["grid"], s["class"], s["scale"]): s for s in found}
    whole = {scale for *_, scale in lines} >= set(task.scales)
    return {key: line for key, line in lines.items() if whole or key[-1] != "average"}


def slice_of_case(task: Task) -> int:
    """Index of the slice that shows most of the structure, on the 1 mm grid."""
    label = np.asarray(nib.load(task.file("labelsTr")).dataobj)
    return int((label > 0).sum(axis=tuple(a for a in range(3) if a != task.axis)).argmax())


def add(task: Task, name: str, output_dirs: list[Path]) -> None:
    """Takes in what an evaluation wrote, or several evaluations of one scale or one part of the cases each."""
    folder = task.results / name
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[list[str]] = []
    slices = {}
    for output_dir in output_dirs:
        with open(output_dir / "metrics" / "per_case.csv", newline="") as file:
            found = list(csv.reader(file))
        if "spacing" in found[0]:  # of acquisitions, which are no scales; their titles are the columns' names
            found = by_spacing(found)
        lines += found if not lines else found[1:]
        for scale in task.scales:
            path = output_dir / "answers" / "full" / scale / f"{task.case}.nii.gz"
            if path.exists():
                slices[scale] = np.asarray(nib.load(path).dataobj).take(slice_of_case(task), axis=task.axis)
    with open(folder / "per_case.csv", "w", newline="") as file:
        csv.writer(file).writerows(lines)
    if slices:
        np.savez_compressed(folder / "slices.npz", **slices)
    print(f"{folder}: per_case.csv, slices of scales {', '.join(slices) or 'none (--save_answers true keeps them)'}")


def by_spacing(lines: Sequence[Sequence[str]]) -> list[list[str]]:
    """Lines of an evaluation on acquisitions with the spacing as the scale, without what is no measure."""
    head = list(lines[0])
    kept = [i for i, name in enumerate(head) if name not in ("profile", "level")]
    head[head.index("spacing")] = "scale"
    return [[line[i] for i in kept] for line in (head, *lines[1:])]


def add_published(path: Path) -> None:
    """Takes in scores of published predictions: model, case, scale, grid, class, dice."""
    with open(path, newline="") as file:
        found = list(csv.DictReader(file))
    for model in dict.fromkeys(row["model"] for row in found):
        target = HIPPOCAMPUS.results / "paper_split" / model / "per_case.csv"
        target.parent.mkdir(parents=True, exist_ok=True)
        columns = ("case", "scale", "grid", "class", "dice")
        lines = [[f"{float(r[c]):g}" if c == "scale" else r[c] for c in columns] for r in found if r["model"] == model]
        with open(target, "w", newline="") as file:
            csv.writer(file).writerows([columns, *lines])
        print(target)


def lines_of(path: Path) -> list[dict[str, str]]:
    """Lines of a CSV file; none where it is not there yet."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def write_lines(path: Path, columns: Sequence[str], lines: Iterable[Mapping[str, str]]) -> None:
    """Writes a CSV file, in a folder that is made if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(lines)


@cache
def benchmark(task: Task) -> dict[tuple[str, ...], dict[str, str]]:
    return {
        (r["model"], f"{float(r['scale']):g}", r["output"], r["threads"], r["what"]): r
        for r in lines_of(task.results / "benchmark.csv")
    }
