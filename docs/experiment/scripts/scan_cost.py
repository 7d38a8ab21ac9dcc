"""Measures CPU time and memory of ``rare-unet`` for one scan of each kind: the table in docs/faq.md.

    python docs/experiment/scripts/scan_cost.py

Runs the whole command, with its report, on one thread without a GPU: on the sample scans of the hippocampus bundle, on
the head at 4 mm, and on a brain with a tumour at 1, 2 and 4 mm (``--brain``, a 4-D file in the Decathlon's layout). The
same command with nothing left to do says what Python's start takes. CPU seconds are those of user and system together,
the least of ``--runs``; they hardly depend on what else the machine does. The memory is the most that was resident.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from experiment_tasks import BRAIN_TUMOR, HIPPOCAMPUS, ROOT
from monai.data import MetaTensor
from monai.utils import ensure_tuple_rep

from rare_unet_networks.data import Acquisition
from rare_unet_networks.transforms import simulate_acquisition

DOCUMENT = ROOT / "docs/faq.md"
SAMPLE = HIPPOCAMPUS.bundle / "sample"
# Runs a command from a small process: a child starts with the memory of its parent as its highest.
MEASURED = """
import json, resource, subprocess, sys
status = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20]))
sys.exit(status)
"""


def coarser(path: Path, spacing: float | Sequence[float], target: Path) -> Path:
    """A scan of one or several channels at another voxel size, as a scanner would acquire it."""
    image = nib.load(path)
    data = np.asarray(image.dataobj, dtype=np.float32)
    channels = torch.from_numpy(data.reshape(*data.shape[:3], -1)).movedim(-1, 0)
    scan = simulate_acquisition(
        MetaTensor(channels, affine=torch.from_numpy(image.affine)), Acquisition(ensure_tuple_rep(spacing, 3))
    )
    voxels = scan.as_tensor().movedim(0, -1).squeeze(-1).numpy()
    nib.save(nib.Nifti1Image(voxels, scan.affine.double().numpy()), target)
    return target


def scans(folder: Path, brain: Path) -> Iterator[tuple[str, str, Path]]:
    """Task, name and file of each scan; those that are not shipped are made in the folder."""
    head = SAMPLE / "heads/icbm152_head_1mm.nii.gz"
    yield "hippocampus", "crop, 1 mm", SAMPLE / "images/icbm152_left_1mm.nii.gz"
    yield "hippocampus", "head, 1 mm", head
    yield "hippocampus", "head, 4 mm", coarser(head, 4.0, folder / "head_4mm.nii.gz")
    yield "hippocampus", "head, 1×1×5 mm", SAMPLE / "heads/icbm152_head_1x1x5mm.nii.gz"
    yield "brain-tumour", "brain with tumour, 1 mm", brain
    for spacing in (2.0, 4.0):
        file = coarser(brain, spacing, folder / f"brain_{spacing:g}mm.nii.gz")
        yield "brain-tumour", f"brain with tumour, {spacing:g} mm", file


def measure(task: str, scan: Path, output: Path) -> tuple[float, float]:
    """CPU seconds and gigabytes of the segmentation of one scan."""
    words = [sys.executable, "-m", "rare_unet_networks", task, str(scan), "-o", str(output), "--device", "cpu"]
    words += ["--runtime", "eager"]
    return cost_of(words)


def cost_of(words: Sequence[str]) -> tuple[float, float]:
    """CPU seconds and gigabytes of a command.

    Raises:
        RuntimeError: If it fails.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", MEASURED, *words], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with status {done.returncode}.")
    seconds, gigabytes = json.loads(done.stdout)
    return seconds, gigabytes


def row_of(task: str, name: str, scan: Path, folder: Path, runs: int, starts: dict[str, float]) -> str:
    """The row of a scan in the table. ``starts`` gets the CPU seconds of the start of each task's command."""
    sizes = "×".join(map(str, nib.load(scan).shape[:3]))
    outputs = [folder / f"{scan.name}_{run}" for run in range(runs)]
    costs = [measure(task, scan, output) for output in outputs]
    if task not in starts:
        starts[task] = min(measure(task, scan, output)[0] for output in outputs)  # the scan is done
    seconds, peak = min(s for s, _ in costs), max(gigabytes for _, gigabytes in costs)
    return f"| {name} | {sizes} | {seconds:.1f} | {seconds - starts[task]:.1f} | {peak:.1f} |"


def with_table(text: str, rows: Sequence[str]) -> str:
    """A document with these rows in place of those between the marks of the table ``cost``."""
    heads = (
        "| scan | voxels | CPU s, whole command | CPU s, without Python's start | memory (GB) |\n|---|---|---|---|---|"
    )
    table = "\n".join([heads, *rows])
    new, count = re.subn(
        r"(<!-- table: cost -->\n).*?(<!-- /table -->)", lambda m: f"{m[1]}{table}\n{m[2]}", text, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"{DOCUMENT} must have the marks of one table 'cost', got {count}.")
    return new


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--brain", type=Path, default=BRAIN_TUMOR.file("imagesTr"))
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows: list[str] = []
        starts: dict[str, float] = {}
        for task, name, scan in scans(Path(folder), args.brain):
            rows.append(row_of(task, name, scan, Path(folder), args.runs, starts))
            print(rows[-1], flush=True)
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(encoding="utf-8"), rows), encoding="utf-8")


if __name__ == "__main__":
    main()
