"""The tasks of docs/experiment: where their results are, and what their tables and figures show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

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
# All 22 cases at 2 mm, trained with random acquisitions; scored at the same scales, and on other acquisitions.
BRAIN_TUMOR_22 = replace(BRAIN_TUMOR_2MM, name="brain_tumor_22")
BRAIN_TUMOR_22_ACQUISITIONS = replace(
    BRAIN_TUMOR_22,
    name="brain_tumor_22_acquisitions",
    heads=MappingProxyType(
        {
            "3x3x3": "3 mm",
            "5x5x5": "5 mm",
            "6x6x6": "6 mm",
            "2x2x6": "2×2×6 mm, axial",
            "2x6x2": "2×6×2 mm, coronal",
            "6x2x2": "6×2×2 mm, sagittal",
        }
    ),
)
TASKS = {
    task.name: task for task in (HIPPOCAMPUS, BRAIN_TUMOR, BRAIN_TUMOR_2MM, BRAIN_TUMOR_22, BRAIN_TUMOR_22_ACQUISITIONS)
}
