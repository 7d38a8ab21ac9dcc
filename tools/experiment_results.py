"""The results in docs/experiment: where they lie, how they are read, how new ones are taken in."""

from __future__ import annotations

import csv
import json
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from rare_unet_networks import read_rows, summarise

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
RESULTS = DOCS / "experiment"
BUNDLE = ROOT / "bundles/hippocampus_mri_segmentation"
CASE = "hippocampus_067"  # of figure 4: the bundle's labelled sample
SCALES = ("1", "0.5", "0.25", "0.125")
# The first is what differences are taken from.
PAPER_SPLIT = {
    "rare_unet_finetuned": "ours, trained on with such scans",
    "rare_unet": "ours, trained on block means",
    "rare_unet_means": "ours, trained and scored on block means",
}
HEADS = {"1": "1 (1 mm)", "0.5": "1/2 (2 mm)", "0.25": "1/4 (4 mm)", "0.125": "1/8 (8 mm)"}


def subject(case: str) -> int:
    """Volumes 2k - 1 and 2k of Task04 are the two hippocampi of one person."""
    return (int(case.split("_")[1]) + 1) // 2


@cache
def listed(folder: str = "") -> dict[str, dict[str, Any]]:
    """All entries of a models.json, those without results too: of the models, or of ``folder="ablations"``."""
    return json.loads((RESULTS / folder / "models.json").read_text())


@cache
def models(folder: str = "") -> dict[str, dict[str, Any]]:
    """Those whose results are there, by name, in the order of models.json."""
    return {n: entry for n, entry in listed(folder).items() if (RESULTS / folder / n / "per_case.csv").exists()}


def places() -> set[str]:
    """Where results may be added, relative to docs/experiment."""
    return {*listed(), *(f"ablations/{n}" for n in listed("ablations")), *(f"paper_split/{n}" for n in PAPER_SPLIT)}


@cache
def rows(name: str) -> tuple[dict[str, Any], ...]:
    return tuple(read_rows(RESULTS / name / "per_case.csv"))


@cache
def summary(name: str) -> dict[tuple[str, str, str, str], dict[str, Any]]:
    """Lines by (measure, grid, class, scale); a network of one scale has no average over scales."""
    lines = {(s["measure"], s["grid"], s["class"], s["scale"]): s for s in summarise(rows(name))}
    whole = {scale for *_, scale in lines} >= set(SCALES)
    return {key: line for key, line in lines.items() if whole or key[-1] != "average"}


def slice_of_case() -> int:
    """Index of the sagittal slice that shows most of the structure, on the first axis of the 1 mm grid."""
    label = np.asarray(nib.load(BUNDLE / f"sample/Task04_Hippocampus/labelsTr/{CASE}.nii.gz").dataobj)
    return int((label > 0).sum(axis=(1, 2)).argmax())


def add(name: str, output_dirs: list[Path]) -> None:
    """Takes in what an evaluation wrote, or several evaluations of one scale each."""
    folder = RESULTS / name
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[list[str]] = []
    slices = {}
    for output_dir in output_dirs:
        with open(output_dir / "metrics" / "per_case.csv", newline="") as file:
            found = list(csv.reader(file))
        lines += found if not lines else found[1:]
        for scale in SCALES:
            path = output_dir / "answers" / "full" / scale / f"{CASE}.nii.gz"
            if path.exists():
                slices[scale] = np.asarray(nib.load(path).dataobj)[slice_of_case()]
    with open(folder / "per_case.csv", "w", newline="") as file:
        csv.writer(file).writerows(lines)
    if slices:
        np.savez_compressed(folder / "slices.npz", **slices)
    print(f"{folder}: per_case.csv, slices of scales {', '.join(slices) or 'none (--save_answers true keeps them)'}")


def add_published(path: Path) -> None:
    """Takes in scores of published predictions: model, case, scale, grid, class, dice."""
    with open(path, newline="") as file:
        found = list(csv.DictReader(file))
    for model in dict.fromkeys(row["model"] for row in found):
        target = RESULTS / "paper_split" / model / "per_case.csv"
        target.parent.mkdir(parents=True, exist_ok=True)
        columns = ("case", "scale", "grid", "class", "dice")
        lines = [[f"{float(r[c]):g}" if c == "scale" else r[c] for c in columns] for r in found if r["model"] == model]
        with open(target, "w", newline="") as file:
            csv.writer(file).writerows([columns, *lines])
        print(target)


@cache
def benchmark() -> dict[tuple[str, ...], dict[str, str]]:
    path = RESULTS / "benchmark.csv"
    if not path.exists():
        return {}
    with open(path, newline="") as file:
        return {
            (r["model"], f"{float(r['scale']):g}", r["output"], r["threads"], r["what"]): r
            for r in csv.DictReader(file)
        }
