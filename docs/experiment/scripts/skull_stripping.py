"""Measures how well --skull_strip true removes skulls: the table of docs/clinic.md.

    pip install deepbet
    python docs/experiment/scripts/skull_stripping.py ../shared/data/WholeHead skull_stripping.csv

No head here has a mask of its brain made by hand. So there are four kinds of scans:

- head: T1w scans with skull, as they are and with slices of 5 mm. Of the scan as it is, what is measured is its volume
  and how much of both hippocampi (hippodeep's masks) it keeps; of thick slices, the Dice with the mask of the scan as
  it is.
- T2w: stacks of the same persons with slices of 5 mm, against the T1w scan's mask, brought to them by the affines.
- brain: T1w scans whose skull the authors of the data removed, against their own voxels that are not 0.
- simulated: the same brains in the skull and scalp of skull_warnings.py, against the brain.

Scans that are in the table already are left out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage, SpatialResample
from skull_warnings import in_a_head

from rare_unet_networks.data import Acquisition
from rare_unet_networks.transforms import SkullStripper, simulate_acquisition
from rare_unet_networks.utils.tables import aligned, append_rows, read_rows, write_rows

COLUMNS = ("kind", "slices", "scan", "litres", "dice", "left_over", "lost", "hippocampi", "seconds")
THICK = 5.0  # mm
BRAINS = 6  # scans without skull, of sixteen
THICK_HEADS, THICK_BRAINS = 6, 4  # the first ones, which are also measured with thick slices
SIMULATED = 2  # brains that are put into a simulated head: those of about 1 mm, for which it is made


def read(path: Path) -> MetaTensor:
    """A scan, shape (1, D, H, W), in RAS: its last axis is that of the slices."""
    return LoadImage(image_only=True, ensure_channel_first=True, reader="NibabelReader", as_closest_canonical=True)(
        path
    )


def thick(scan: MetaTensor, is_label: bool = False) -> MetaTensor:
    """The scan with axial slices of 5 mm."""
    spacing = [float(s) for s in scan.pixdim]
    return simulate_acquisition(scan, Acquisition((*spacing[:2], THICK)), is_label=is_label)


def on_grid(mask: MetaTensor, scan: MetaTensor) -> torch.Tensor:
    """A mask on the grid of another scan, bool."""
    moved = SpatialResample(mode="bilinear", padding_mode="zeros")(mask.float(), scan.affine, scan.shape[1:])
    return moved.as_tensor() > 0.5


class Table:
    """Rows of scans, written one by one."""

    def __init__(self, path: Path) -> None:
        self.path, self.strip = path, SkullStripper(["T1w"])
        if not path.exists():
            write_rows(path, COLUMNS)
        self.done = {tuple(row[c] for c in COLUMNS[:3]) for row in read_rows(path, COLUMNS[:3])}

    def add(self, kind: str, slices: str, name: str, scan: MetaTensor, reference=None, hippocampi=None) -> MetaTensor:
        """Strips a scan, writes its row, and returns the mask."""
        start = time.process_time()
        mask = MetaTensor(self.strip.mask(scan.as_tensor()[0], scan.affine)[None], affine=scan.affine)
        seconds, inside = time.process_time() - start, mask.as_tensor()
        millilitres = float(torch.linalg.det(scan.affine[:3, :3].double()).abs()) / 1e3
        row = dict.fromkeys(COLUMNS, "") | {"kind": kind, "slices": slices, "scan": name, "seconds": seconds}
        row["litres"] = float(inside.sum()) * millilitres / 1e3
        if reference is not None:
            row["dice"] = 2 * float((inside & reference).sum()) / float(inside.sum() + reference.sum())
            row["left_over"] = float((inside & ~reference).sum()) * millilitres
            row["lost"] = float((reference & ~inside).sum()) * millilitres
        if hippocampi is not None:
            row["hippocampi"] = float((inside & hippocampi).sum() / hippocampi.sum())
        if (kind, slices, name) not in self.done:
            append_rows(self.path, COLUMNS, [row])
            print(kind, slices, name, flush=True)
        return mask


def measure(folder: Path, table: Table) -> None:
    for number, path in enumerate(sorted((folder / "images").glob("ds000011_sub-??.nii.gz"))):
        name = path.name.removesuffix(".nii.gz")
        kinds = {("head", "own", name)} | ({("head", "thick", name)} if number < THICK_HEADS else set())
        stack = path.with_name(f"{name}_T2w.nii.gz")
        kinds |= {("T2w", "thick", name)} if stack.exists() else set()
        if kinds <= table.done:
            continue
        scan, hippocampi = read(path), read(folder / "hippocampi" / path.name).as_tensor() > 0
        mask = table.add("head", "own", name, scan, hippocampi=hippocampi)
        if stack.exists():
            t2w = read(stack)
            table.add("T2w", "thick", name, t2w, on_grid(mask, t2w))
        if number < THICK_HEADS:
            table.add("head", "thick", name, thick(scan), thick(mask, is_label=True).as_tensor() > 0)
    for number, path in enumerate(sorted((folder / "images").glob("ds002748_*.nii.gz"))[:BRAINS]):
        name, scan = path.name.removesuffix(".nii.gz"), read(path)
        for kind, slices, image, brain in forms(scan, number < THICK_BRAINS, number < SIMULATED):
            if (kind, slices, name) not in table.done:
                table.add(kind, slices, name, image, brain.as_tensor() > 0)


def forms(scan: MetaTensor, with_thick: bool, with_head: bool) -> Iterator[tuple[str, str, MetaTensor, MetaTensor]]:
    """Kind, slices, scan and mask of the brain, of a brain as it is, in a head, and each with thick slices."""
    brain = MetaTensor((scan.as_tensor() != 0).float(), affine=scan.affine)
    yield "brain", "own", scan, brain
    if with_thick:
        yield "brain", "thick", thick(scan), thick(brain, is_label=True)
    if with_head:
        head = in_a_head(scan)
        width = (head.shape[1] - scan.shape[1]) // 2
        affine = head.affine.clone()
        affine[:3, 3] -= affine[:3, :3].sum(dim=1) * width
        head = MetaTensor(head.as_tensor(), affine=affine)
        inside = MetaTensor(torch.nn.functional.pad(brain.as_tensor(), [width] * 6), affine=head.affine)
        yield "simulated", "own", head, inside
        yield "simulated", "thick", thick(head), thick(inside, is_label=True)


def summary(rows: list[dict]) -> list[list[str]]:
    """A line for each kind of scans: median and range of each measure."""
    lines = [["kind", "slices", "scans", *COLUMNS[3:]]]
    for kind, slices in dict.fromkeys((row["kind"], row["slices"]) for row in rows):
        group = [row for row in rows if (row["kind"], row["slices"]) == (kind, slices)]
        cells = []
        for column in COLUMNS[3:]:
            values = [float(row[column]) for row in group if row[column] != ""]
            digits = 0 if column in ("left_over", "lost") else 1 if column == "seconds" else 3
            words = [f"{value:.{digits}f}" for value in (np.median(values), min(values), max(values))] if values else []
            cells.append(f"{words[0]} ({words[1]} to {words[2]})" if words else "")
        lines.append([kind, slices, str(len(group)), *cells])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset_dir", type=Path)
    parser.add_argument("table", type=Path)
    args = parser.parse_args()
    measure(args.dataset_dir, Table(args.table))
    print(aligned(summary(read_rows(args.table, COLUMNS))))


if __name__ == "__main__":
    main()
