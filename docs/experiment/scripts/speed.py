"""Times what a user waits for, and writes docs/experiment/hippocampus/speed.csv and the tables of docs/speed.md.

    python docs/experiment/scripts/speed.py

Networks are timed in turns, each after a call that warms it up; medians of ``--runs``. A pipeline is what the command
does for each of several scans (here equal copies), without trust and report, and without what a command does once:
Python's start and the weights. ``--clock cpu`` takes CPU seconds on one thread, for a machine that has other work.
``--parts`` measures some parts anew, without a name none: it then only writes the tables. ``--also`` times another
program on the crop of 1 mm from its start to its end: ``--also "nnU-Net=nnUNetv2_predict -i {input} -o {output} -d 501
-c 3d_fullres -f 0"``, ``--also "hippodeep=bash deepseg1.sh {file}"``.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import nibabel as nib
import torch
from experiment_results import lines_of, write_lines
from experiment_tasks import BRAIN_TUMOR, DOCS, HIPPOCAMPUS, Task
from monai.bundle import ConfigWorkflow
from monai.data import MetaTensor
from monai.networks.nets import BasicUNet, DynUNet
from speed_pipeline import SPACINGS, Clock, check_openvino, pipeline, scan_of, workflow_of
from speed_tables import with_tables

from rare_unet_networks.runtimes import load_runtime
from rare_unet_networks.runtimes.load import runtime_in_words

RESULTS = HIPPOCAMPUS.results / "speed.csv"
PARTS = ("crops", "heads", "sizes", "tumours", "throughput")
COLUMNS = ("part", "scan", "voxels", "level", "what", "runtime", "seconds", "cpu_seconds", "gigabytes", "clock")
RUNTIMES = ("eager", "auto")
SAMPLE = HIPPOCAMPUS.bundle / "sample"
CROP, HEAD = SAMPLE / "images/icbm152_left_1mm.nii.gz", SAMPLE / "heads/icbm152_head_1mm.nii.gz"
CHANNELS = (16, 32, 64, 96, 128)
SIZES = [(32, 48, 32), (48, 64, 48), (64, 80, 64), (80, 96, 80), (96, 112, 96)]
BRAIN = (146, 181, 143)  # the largest box of a brain among the cases of BraTS that are used here
Row = dict[str, object]


def in_turns(functions: Sequence[Callable[[], object]], runs: int) -> list[float]:
    """Median seconds of each function; they run in turns, ``runs`` times.

    Each runs once before it is timed: threads of the runtime before it may still wait for work, and cost a small
    network of another runtime a fifth of its time.
    """
    seconds: list[list[float]] = [[] for _ in functions]
    with torch.no_grad():
        for _ in range(runs):
            for function, of_function in zip(functions, seconds):
                function()
                start = Clock.now()
                function()
                of_function.append(Clock.now() - start)
    return [median(of_function) for of_function in seconds]


def networks(task: Task, runtimes: Sequence[str] = RUNTIMES) -> tuple[ConfigWorkflow, list[Callable]]:
    """An inference, and its network by each runtime, ready to be called."""
    workflow = workflow_of(task, input=str(CROP) if task is HIPPOCAMPUS else str(task.bundle), runtime="eager")
    get = workflow.parser.get_parsed_content
    network = get("network_def").eval()
    return workflow, [load_runtime(r, network, get("export_dir"), get("checkpoint"), "cpu") for r in runtimes]


def crops(runs: int, folder: Path) -> list[Row]:
    """Network alone and pipeline of a crop; at 1 mm also MONAI's U-Nets of equal width."""
    workflow, nets = networks(HIPPOCAMPUS)
    levels, rows = workflow.parser.get_parsed_content("levels"), []
    strides = (1, 2, 2, 2, 2)
    peers = {
        "BasicUNet": BasicUNet(3, 1, 3, (*CHANNELS, CHANNELS[0])).eval(),
        "DynUNet": DynUNet(3, 1, 3, (3,) * 5, strides, strides[1:], CHANNELS).eval(),
    }
    for name, spacing in {**SPACINGS, "8 mm": (8.0, 8.0, 8.0)}.items():
        scan = scan_of(CROP, spacing, folder)
        image = nib.load(scan)
        route = levels.route(MetaTensor(torch.zeros(1, 1, *image.shape), affine=torch.from_numpy(image.affine)))
        x = torch.rand(1, 1, *route.padded_size)
        shared = {"part": "crops", "scan": name, "voxels": "×".join(map(str, image.shape)), "level": route.level}
        calls = [partial(net, x, level=route.level, output="both") for net in nets]
        others = peers if name == "1 mm" else {}
        calls += [partial(net, x) for net in others.values()]
        names = [*(("network", runtime) for runtime in RUNTIMES), *((peer, "eager") for peer in others)]
        for (what, runtime), seconds in zip(names, in_turns(calls, runs)):
            rows.append({**shared, "what": what, "runtime": runtime, "seconds": seconds})
        check_openvino(runtime_in_words(nets[-1]))
        for runtime in RUNTIMES:
            seconds = pipeline(scan, runtime, runs, folder)["seconds"]
            rows.append({**shared, "what": "pipeline", "runtime": runtime, "seconds": seconds})
    return rows


def heads(runs: int, folder: Path) -> list[Row]:
    """Pipeline of a whole head."""
    rows = []
    for name, spacing in SPACINGS.items():
        scan = scan_of(HEAD, spacing, folder)
        size = "×".join(map(str, nib.load(scan).shape))
        for runtime in RUNTIMES:
            measured = pipeline(scan, runtime, runs, folder)
            shared = {"part": "heads", "scan": name, "voxels": size, "level": measured["level"]}
            rows.append({**shared, "what": "pipeline", "runtime": runtime, "seconds": measured["seconds"]})
    return rows


def sizes(runs: int, folder: Path) -> list[Row]:
    """Network alone at level 0 for crops of several sizes."""
    _, (net,) = networks(HIPPOCAMPUS, ("eager",))
    inputs = [torch.rand(1, 1, *size) for size in SIZES]
    measured = in_turns([partial(net, x) for x in inputs], runs)
    shared = {"part": "sizes", "scan": "1 mm", "level": 0, "what": "network", "runtime": "eager"}
    return [{**shared, "voxels": "×".join(map(str, n)), "seconds": s} for n, s in zip(SIZES, measured)]


def tumours(runs: int, folder: Path) -> list[Row]:
    """Network alone for a brain with a tumour; at 1 mm by eager alone, because OpenVINO is refused for a real brain."""
    workflow, nets = networks(BRAIN_TUMOR)
    levels, rows = workflow.parser.get_parsed_content("levels"), []
    for level in range(levels.num_levels):
        x = torch.rand(1, 4, *levels.padded_size([-(-n >> level) for n in BRAIN], level))
        calls = [partial(net, x, level=level, output="both") for net in (nets if level else nets[:1])]
        shared = {"part": "tumours", "scan": f"{2**level} mm", "voxels": "×".join(map(str, x.shape[2:]))}
        for runtime, seconds in zip(RUNTIMES, in_turns(calls, runs)):
            rows.append({**shared, "level": level, "what": "network", "runtime": runtime, "seconds": seconds})
    check_openvino(runtime_in_words(nets[-1]))
    return rows


def throughput(runs: int, folder: Path) -> list[Row]:
    """Many scans in one command, in a process of its own: seconds, CPU seconds and memory."""
    rows = []
    for file, count in ((CROP, 52), (HEAD, 20)):
        for workers in (0, 2):
            words = [sys.executable, __file__, "--worker", str(file), str(count), str(workers)]
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            seconds, cpu, first, last = json.loads(done.stdout.splitlines()[-1])
            what = f"{count} scans, num_workers {workers}"
            shared = {"part": "throughput", "scan": "crop" if file is CROP else "head", "what": what, "runtime": "auto"}
            rows.append({**shared, "seconds": seconds, "cpu_seconds": cpu, "gigabytes": f"{first:.2f} {last:.2f}"})
    return rows


def worker(file: str, count: str, workers: str) -> None:
    """Prints seconds and CPU seconds a scan, and the most memory after the first and the last one, of one command."""

    def cpu() -> float:
        return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))

    with tempfile.TemporaryDirectory() as folder:
        before = cpu()
        measured = pipeline(Path(file), "auto", int(count) - 1, Path(folder), num_workers=int(workers))
        print(json.dumps([measured["total"] / int(count), (cpu() - before) / int(count), *measured["memory"]]))


def also(text: str, folder: Path) -> Row:
    """Another program on the crop of 1 mm, from its start to its end.

    Raises:
        ValueError: if the text is not ``NAME=COMMAND``.
    """
    name, equals, command = text.partition("=")
    if not (name and equals and command):
        raise ValueError(f"--also must be NAME=COMMAND, got {text!r}.")
    (folder / "also").mkdir(exist_ok=True)
    file = Path(shutil.copy(CROP, folder / "also/scan_0000.nii.gz"))
    words = shlex.split(command.format(input=file.parent, file=file, output=folder / "also_output"))
    start = time.perf_counter()
    subprocess.run(words, check=True)
    return {
        "part": f"also {name}",
        "scan": "1 mm",
        "what": f"{name}, the whole program",
        "seconds": time.perf_counter() - start,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", choices=PARTS, nargs="*", default=PARTS)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--also", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.clock == "cpu":
        Clock.now = time.process_time
        torch.set_num_threads(1)
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")
    if args.worker:
        worker(*args.worker)
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for part in args.parts for row in globals()[part](args.runs, Path(folder))]
        rows += [also(text, Path(folder)) for text in args.also]
    for row in rows:
        row["clock"] = "CPU time" if args.clock == "cpu" else "time"
        row["clock"] += f", {torch.get_num_threads()} thread(s)"
        row |= {k: f"{row[k]:.4f}" for k in ("seconds", "cpu_seconds") if k in row}
    parts = {row["part"] for row in rows}
    kept = [line for line in lines_of(args.output) if line["part"] not in parts]
    lines = sorted([*kept, *rows], key=lambda row: [*PARTS, row["part"]].index(row["part"]))
    write_lines(args.output, COLUMNS, lines)
    for document in (DOCS / "speed.md", DOCS.parent / "README.md") if args.output == RESULTS else ():
        document.write_text(with_tables(document.read_text(encoding="utf-8"), lines_of(RESULTS)), encoding="utf-8")


if __name__ == "__main__":
    main()
