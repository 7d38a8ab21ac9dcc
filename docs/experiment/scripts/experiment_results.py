"""The results in docs/experiment: of which tasks they are, how they are read, how new ones are taken in."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import nibabel as nib
import numpy as np

from rare_unet_networks.baselines import read_rows
from rare_unet_networks.metrics.summary import summarise

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
OVERLAYS = DOCS / "experiment/overlays"
SHARED = ROOT.parent / "shared/data"
HEADS = {"1": "1 (1 mm)", "0.5": "1/2 (2 mm)", "0.25": "1/4 (4 mm)", "0.125": "1/8 (8 mm)"}


def person(case: str) -> int:
    """Volumes 2k - 1 and 2k of Task04 are the two hippocampi of one person."""
    return (int(case.split("_")[1]) + 1) // 2


@dataclass(frozen=True)
class Task:
    """What one task's tables and figures are made from.

    Args:
        name: folder of its results in docs/experiment, and what its tables' names begin with.
        bundle: its bundle.
        document: where most of its tables are; its bundle's README has some.
        classes: their names, those in ``regions`` apart.
        ours: rows of ours that the others are compared with.
        shipped: the row of the shipped network, whose figures the bundle's metadata tell; none by default.
        short: the rows of the READMEs' tables.
        dataset: folder with the case of its figure, in the Decathlon's layout.
        case: the case of its figure; none without a name.
        axis: which axis of the case's array the figure's slice is taken from.
        origin: where matplotlib puts the slice's first voxel.
        colours: of the classes.
        regions: names of unions of classes, which do not count in means.
        heads: title of each scale's column.
        subject: gives the person of a case's name.
        splits: the lists of its cases, by default its bundle's.
    """

    name: str
    bundle: Path
    document: Path
    classes: tuple[str, ...]
    ours: tuple[str, ...]
    short: tuple[str, ...]
    dataset: Path
    case: str
    axis: int
    origin: str
    colours: tuple[str, ...]
    shipped: str = ""
    regions: tuple[str, ...] = ()
    heads: Mapping[str, str] = field(default_factory=lambda: MappingProxyType(HEADS), hash=False)
    subject: Callable[[str], Any] = str
    splits: Path | None = None

    def __post_init__(self) -> None:
        if self.splits is None:
            object.__setattr__(self, "splits", self.bundle / "configs/splits.json")

    @property
    def results(self) -> Path:
        return DOCS / "experiment" / self.name

    @property
    def documents(self) -> tuple[Path, Path]:
        return self.document, self.bundle / "docs/README.md"

    @property
    def scales(self) -> tuple[str, ...]:
        return tuple(self.heads)

    def file(self, folder: str) -> Path:
        """The figure's case, in ``imagesTr`` or ``labelsTr``."""
        return self.dataset / folder / f"{self.case}.nii.gz"


HIPPOCAMPUS = Task(
    name="hippocampus",
    bundle=ROOT / "bundles/hippocampus_mri_segmentation",
    document=DOCS / "experiment/README.md",
    classes=("anterior", "posterior"),
    ours=("rare_unet_60", "rare_unet"),  # with the effort of the baselines; shipped
    shipped="rare_unet",
    short=("rare_unet", "rare_unet_60", "unet_aug_full_up", "mean_shape"),
    dataset=ROOT / "bundles/hippocampus_mri_segmentation/sample/Task04_Hippocampus",
    case="hippocampus_067",  # the bundle's labelled sample
    axis=0,
    origin="lower",
    colours=("#e69f00", "#56b4e9"),
    subject=person,
)
BRAIN_TUMOR = Task(
    name="brain_tumor",
    bundle=ROOT / "bundles/brain_tumor_mri_segmentation",
    document=DOCS / "experiment/brain_tumor.md",
    classes=("edema", "non_enhancing", "enhancing"),
    ours=("rare_unet_two_hours_several", "rare_unet"),  # as long as the baselines; shipped
    shipped="rare_unet",
    short=("rare_unet", "rare_unet_two_hours_several", "unet_aug_full_up", "unet_up"),
    dataset=SHARED / "Task01_BrainTumour",
    case="BRATS_TCIA02_606_1",
    axis=2,
    origin="upper",
    colours=("#56b4e9", "#e69f00", "#d55e00"),
    regions=("WT", "TC", "ET"),
)
BRAIN_TUMOR_2MM = replace(
    BRAIN_TUMOR,
    name="brain_tumor_2mm",
    ours=("rare_unet",),
    shipped="",
    case="",  # no figure of its own
    heads=MappingProxyType({"1": "2 mm", "0.5": "4 mm", "0.25": "8 mm"}),
)
TASKS = {task.name: task for task in (HIPPOCAMPUS, BRAIN_TUMOR, BRAIN_TUMOR_2MM)}
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
