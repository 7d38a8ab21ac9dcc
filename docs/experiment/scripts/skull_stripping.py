"""Measures how well --skull_strip true removes skulls: the table of docs/clinic.md.

    pip install deepbet SimpleITK
    python docs/experiment/scripts/skull_stripping.py ../shared/data/WholeHead skull_stripping.csv --heads 4 --brains 2

No head here has a mask of its brain made by hand. So there are four kinds of scans:

- head: T1w scans with skull. What is measured is the volume that is left, and how much of both hippocampi
  (hippodeep's masks) is in it.
- thick: the same scans with axial slices of 5 mm, against the mask of the scan as it is.
- T2w: stacks of the same persons with slices of 5 mm, against the T1w scan's mask, which is brought to them by rigid
  registration of both scans.
- brain: T1w scans whose skull the authors of the data removed, against their own voxels that are not 0.

Scans that are in the table already are left out.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage, SpatialResample

from rare_unet_networks.data import Acquisition
from rare_unet_networks.transforms import SkullStripper, simulate_acquisition
from rare_unet_networks.utils.tables import aligned, append_rows, read_rows, write_rows

COLUMNS = ("kind", "scan", "spacing", "litres", "dice", "left_over", "lost", "hippocampi", "seconds")
THICK = 5.0  # mm


def read(path: Path) -> MetaTensor:
    """A scan, shape (1, D, H, W), in RAS: its last axis is that of the slices."""
    return LoadImage(image_only=True, ensure_channel_first=True, reader="NibabelReader", as_closest_canonical=True)(
        path
    )


def thick(scan: MetaTensor, is_label: bool = False) -> MetaTensor:
    """The scan with axial slices of 5 mm."""
    spacing = [float(s) for s in scan.pixdim]
    return simulate_acquisition(scan, Acquisition((*spacing[:2], THICK)), is_label=is_label)


def on_stack(mask: MetaTensor, scan: MetaTensor, stack: MetaTensor) -> torch.Tensor:
    """The mask of ``scan`` on the grid of another scan of the person, after rigid registration."""
    from register_modalities import motion  # it needs SimpleITK

    moved = MetaTensor(mask.float().as_tensor(), affine=torch.as_tensor(motion(stack, scan)) @ mask.affine.double())
    on_grid = SpatialResample(mode="bilinear", padding_mode="zeros")(moved, stack.affine, stack.shape[1:])
    return on_grid.as_tensor() > 0.5


class Table:
    """Rows of scans, written one by one."""

    def __init__(self, path: Path) -> None:
        self.path, self.strip = path, SkullStripper(["T1w"])
        if not path.exists():
            write_rows(path, COLUMNS)
        self.done = {(row["kind"], row["scan"]) for row in read_rows(path, COLUMNS[:2])}

    def add(self, kind: str, name: str, scan: MetaTensor, reference=None, hippocampi=None) -> MetaTensor:
        """Strips a scan, writes its row unless there is one, and returns the mask."""
        start = time.process_time()
        mask = MetaTensor(self.strip.mask(scan.as_tensor()[0], scan.affine)[None], affine=scan.affine)
        seconds, inside = time.process_time() - start, mask.as_tensor()
        millilitres = float(torch.linalg.det(scan.affine[:3, :3].double()).abs()) / 1e3
        row = dict.fromkeys(COLUMNS, "") | {"kind": kind, "scan": name, "seconds": seconds}
        row["spacing"] = "×".join(f"{float(s):.3g}" for s in scan.pixdim)
        row["litres"] = float(inside.sum()) * millilitres / 1e3
        if reference is not None:
            row["dice"] = 2 * float((inside & reference).sum()) / float(inside.sum() + reference.sum())
            row["left_over"] = float((inside & ~reference).sum()) * millilitres
            row["lost"] = float((reference & ~inside).sum()) * millilitres
        if hippocampi is not None:
            row["hippocampi"] = float((inside & hippocampi).sum() / hippocampi.sum())
        if (kind, name) not in self.done:
            append_rows(self.path, COLUMNS, [row])
            print(kind, name, flush=True)
        return mask


def measure(folder: Path, table: Table, heads: int, brains: int) -> None:
    for path in sorted((folder / "images").glob("ds000011_sub-??.nii.gz"))[:heads]:
        name, stack = path.name.removesuffix(".nii.gz"), path.with_name(path.name.replace(".nii", "_T2w.nii"))
        kinds = ["head", "thick", *(["T2w"] if stack.exists() else [])]
        if all((kind, name) in table.done for kind in kinds):
            continue
        scan = read(path)
        mask = table.add("head", name, scan, hippocampi=read(folder / "hippocampi" / path.name).as_tensor() > 0)
        if stack.exists():
            t2w = read(stack)
            table.add("T2w", name, t2w, on_stack(mask, scan, t2w))
        table.add("thick", name, thick(scan), thick(mask, is_label=True).as_tensor() > 0)
    for path in sorted((folder / "images").glob("ds002748_*.nii.gz"))[:brains]:
        name = path.name.removesuffix(".nii.gz")
        if ("brain", name) not in table.done:
            scan = read(path)
            table.add("brain", name, scan, scan.as_tensor() != 0)


def summary(rows: list[dict]) -> list[list[str]]:
    """A line for each kind of scans: median, least and largest of each measure."""
    lines = [["kind", "scans", *COLUMNS[3:]]]
    for kind in dict.fromkeys(row["kind"] for row in rows):
        group = [row for row in rows if row["kind"] == kind]
        cells = []
        for column in COLUMNS[3:]:
            values = [float(row[column]) for row in group if row[column] != ""]
            digits = 0 if column in ("left_over", "lost") else 1 if column == "seconds" else 3
            words = [f"{value:.{digits}f}" for value in (np.median(values), min(values), max(values))] if values else []
            cells.append(f"{words[0]} ({words[1]} to {words[2]})" if words else "")
        lines.append([kind, str(len(group)), *cells])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset_dir", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("--heads", type=int, default=14, help="number of heads, of 14")
    parser.add_argument("--brains", type=int, default=16, help="number of brains, of 16")
    args = parser.parse_args()
    measure(args.dataset_dir, Table(args.table), args.heads, args.brains)
    print(aligned(summary(read_rows(args.table, COLUMNS))))


if __name__ == "__main__":
    main()
