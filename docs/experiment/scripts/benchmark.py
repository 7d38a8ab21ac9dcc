"""Times every model of a task at every scale and writes docs/experiment/TASK/benchmark.csv.

    python docs/experiment/scripts/benchmark.py --task brain_tumor

On one volume at 1 mm and what it is at 2, 4 and 8 mm: the network alone, the inferer where it also chooses the side,
the whole way from the file to the label map, and the command ``run inferring`` with the most memory it ever held. Then
one training step of all levels against one of level 0 alone; where there is a GPU, the network alone on it, too.
Medians of several runs after one to warm up; the command runs once. Weights are random: they do not change the time.
Keep the machine quiet. Lines of other models and numbers of threads stay in the file: ``--models`` and ``--threads``
measure a part of it anew, to be compared with the rest only on the same machine.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import nibabel as nib
import numpy as np
import torch
from experiment_results import lines_of, write_lines
from experiment_tasks import BRAIN_TUMOR, HIPPOCAMPUS, OVERLAYS, Task
from monai.bundle import ConfigParser
from monai.transforms import Compose, SaveImaged
from torch.utils.flop_counter import FlopCounterMode

from rare_unet_networks.levels import format_scale

# model -> (overlays over inference.json, outputs)
MODELS = {
    "rare_unet": ((), ("native", "full", "both")),
    "rare_unet_paper": (("paper_network",), ("native",)),
    "unet_up": (("unet",), ("full",)),
}
# Runs a command from a small process: a child starts with the memory of its parent as its highest.
MEASURED = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""
COLUMNS = ("model", "scale", "output", "threads", "what", "seconds", "gflop", "parameters", "peak_gb")


# What is measured is called in the table as it was first.
OUTPUTS = {"native": "scan", "full": "fine"}


@dataclass(frozen=True)
class Volume:
    """What a task's models are timed on.

    Args:
        task: the task.
        size: voxels of the scan at 1 mm.
        box: voxels of it that are not zero, in the middle; what the network computes where zeros are cropped.
        patch: voxels of a training patch.
    """

    task: Task
    size: tuple[int, ...]
    box: tuple[int, ...]
    patch: tuple[int, ...]

    @property
    def configs(self) -> Path:
        return self.task.bundle / "configs"

    def files(self, overlays: tuple[str, ...]) -> list[str]:
        """The config files of an inference with these overlays of the task."""
        folder = OVERLAYS / self.task.name
        return [str(self.configs / "inference.json"), *(str(folder / f"{name}.json") for name in overlays)]

    def parsed(self, overlays: tuple[str, ...], output: str) -> ConfigParser:
        parser = ConfigParser()
        parser.read_config(self.files(overlays))
        parser["bundle_root"], parser["routing#output"] = str(self.task.bundle), OUTPUTS[output]
        parser.parse()
        return parser

    def save(self, level: int, channels: int, path: Path) -> None:
        """The scan at 1/2^level, noise in its box."""
        random = np.random.default_rng(level)
        data = np.zeros([n >> level for n in self.size], np.float32)
        margins = [(n - m) // 2 for n, m in zip(self.size, self.box)]
        inside = tuple(slice(a >> level, -(-(a + m) >> level)) for a, m in zip(margins, self.box))
        data[inside] = random.random(data[inside].shape) + 0.1
        data = data if channels == 1 else np.stack([data] * channels, axis=-1)
        nib.save(nib.Nifti1Image(data, np.diag([2**level] * 3 + [1])), path)


VOLUMES = {
    "hippocampus": Volume(HIPPOCAMPUS, (64, 128, 64), (64, 128, 64), (32, 64, 32)),
    # The largest box of the brain among the 16 cases.
    "brain_tumor": Volume(BRAIN_TUMOR, (240, 240, 152), (146, 181, 143), (96, 96, 96)),
}


def timed(function: Callable[[], object], runs: int) -> float:
    """Median seconds."""
    seconds = []
    for i in range(runs + 1):
        start = time.perf_counter()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if i >= 1:
            seconds.append(time.perf_counter() - start)
    return median(seconds)


def path_parameters(net: torch.nn.Module, x: torch.Tensor, **kwargs: object) -> int:
    """Parameters of the modules that a forward pass runs."""
    used: set[torch.nn.Module] = set()
    hooks = [
        m.register_forward_hook(lambda m, i, o: used.add(m))
        for m in net.modules()
        if not list(m.children()) and list(m.parameters())
    ]
    net(x, **kwargs)
    for hook in hooks:
        hook.remove()
    return sum(p.numel() for m in used for p in m.parameters())


def command(volume: Volume, overlays: tuple[str, ...], net: torch.nn.Module, file: Path, threads: int) -> tuple:
    """Seconds and gigabytes at most of ``run inferring`` for one file, from the start of Python to its end."""
    with tempfile.TemporaryDirectory() as folder:
        torch.save(net.state_dict(), Path(folder) / "model.pt")
        words = [sys.executable, "-m", "monai.bundle", "run", "inferring"]
        words += ["--config_file", str(volume.files(overlays))]
        words += ["--input", str(file), "--checkpoint", f"{folder}/model.pt", "--output_dir", folder]
        words += ["--runtime", "eager"]
        start = time.perf_counter()
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run([sys.executable, "-c", MEASURED, *words], env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)} ended with status {done.returncode}.")
        return time.perf_counter() - start, int(done.stdout) / 2**20


def on_gpu(volume: Volume, name: str, output: str, level: int, runs: int) -> tuple:
    """The network alone on a GPU; in place of the number of threads stands its name."""
    net, x, kwargs = network_of(volume, volume.parsed(MODELS[name][0], output), output, level)
    net, x = net.cuda(), x.cuda()
    with torch.no_grad():
        seconds = timed(lambda: net(x, **kwargs), runs)
    return name, format_scale(level), output, torch.cuda.get_device_name(), "network", f"{seconds:.5f}", "", "", ""


def network_of(
    volume: Volume, parser: ConfigParser, output: str, level: int
) -> tuple[torch.nn.Module, torch.Tensor, dict]:
    """A network, what it is given at a level, and how it is called."""
    net, levels = parser.get_parsed_content("network_def").eval(), parser.get_parsed_content("inferer").levels
    # A network of a single level works at full size, whatever the scan's.
    works_at = min(level, net.num_levels - 1)
    kwargs = {"level": works_at, **({"output": OUTPUTS[output]} if output != "native" and works_at else {})}
    grid = levels.padded_size([-(-n >> works_at) for n in volume.box], level=works_at)
    return net, torch.rand(1, parser.get_parsed_content("network_def#in_channels"), *grid), kwargs


def rows_of(volume: Volume, name: str, output: str, level: int, threads: int, runs: int, file: Path) -> list[tuple]:
    """Network, pipeline and command of one model at one scale."""
    overlays = MODELS[name][0]
    parser = volume.parsed(overlays, output)
    inferer = parser.get_parsed_content("inferer")
    net, x, kwargs = network_of(volume, parser, output, level)
    before = parser.get_parsed_content("preprocessing")
    steps = parser.get_parsed_content("postprocessing").transforms
    after = Compose([t for t in steps if not isinstance(t, SaveImaged)])

    def whole() -> None:
        item = before({"image": str(file)})
        answer = inferer(item["image"][None], net)
        pred = {k: v[0] for k, v in answer.items()} if isinstance(answer, dict) else answer[0]
        after({**item, "pred": pred})

    with torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            net(x, **kwargs)
        size = path_parameters(net, x, **kwargs)
        seconds = {"network": timed(lambda: net(x, **kwargs), runs), "pipeline": timed(whole, runs)}
        if getattr(inferer, "side", None) == "auto":
            scan = before({"image": str(file)})["image"][None]
            seconds["network and side"] = timed(lambda: inferer(scan, net), runs)
    gflop, start = counter.get_total_flops() / 1e9, (name, format_scale(level), output, threads)
    lines = [(*start, what, f"{s:.5f}", f"{gflop:.3f}", size, "") for what, s in seconds.items()]
    if output == MODELS[name][1][-1]:
        took, peak = command(volume, overlays, net, file, threads)
        lines.append((*start, "command", f"{took:.2f}", f"{gflop:.3f}", size, f"{peak:.2f}"))
    return lines


def training_rows(volume: Volume, threads: int, runs: int) -> list[tuple]:
    """A step on a batch: of all levels, of level 0 alone, and the mean over the recipe's draws of levels."""
    parser = ConfigParser()
    parser.read_config(str(volume.configs / "train.json"))
    parser.parse()
    net, loss = parser.get_parsed_content("network_def"), parser.get_parsed_content("loss")
    batch_size, channels = parser["batch_size"], parser.get_parsed_content("network_def#in_channels")
    images = [torch.rand(batch_size, channels, *(n >> d for n in volume.patch)) for d in range(net.num_levels)]
    labels = [(image[:, :1] > 0.5).float() for image in images]

    def step(levels: list[int]) -> None:
        fine = [] if 0 in levels else [labels[0]]
        loss(net([images[d] for d in levels], levels=levels), [labels[d] for d in levels] + fine).backward()

    probs = parser.get_parsed_content("start_level_probs")
    starts = [timed(lambda d=d: step(list(range(d, net.num_levels))), runs) for d in range(len(probs))]
    found = {
        "all levels": starts[0],
        "mean of the recipe": sum(p * s for p, s in zip(probs, starts)),
        "level 0 alone": timed(lambda: step([0]), runs),
    }
    return [("rare_unet", 1, "", threads, f"training step, {n}", f"{s:.5f}", "", "", "") for n, s in found.items()]


def take_in(path: Path, rows: list[tuple]) -> None:
    """Adds lines to the file, in place of those of the same model and number of threads."""
    there = lines_of(path)
    new = [dict(zip(COLUMNS, map(str, row))) for row in rows]

    def kind(row: dict[str, str]) -> tuple[str, str]:
        return row["model"], row["threads"]

    measured = {kind(r) for r in new}
    place = next((i for i, r in enumerate(there) if kind(r) in measured), len(there))
    before, after = ([r for r in part if kind(r) not in measured] for part in (there[:place], there[place:]))
    write_lines(path, COLUMNS, [*before, *new, *after])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=VOLUMES, required=True)
    parser.add_argument("--models", choices=MODELS, nargs="+", default=list(MODELS))
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--output", type=Path, help="docs/experiment/TASK/benchmark.csv by default")
    args = parser.parse_args()
    logging.getLogger("rare_unet_networks").setLevel(logging.ERROR)  # the volume is larger than a crop: it would warn
    volume = VOLUMES[args.task]
    channels = volume.parsed((), "native")["network_def"]["in_channels"]
    path = args.output or volume.task.results / "benchmark.csv"
    with tempfile.TemporaryDirectory() as folder:
        for level in range(4):
            volume.save(level, channels, Path(folder) / f"{level}.nii.gz")
        for threads, name in itertools.product(args.threads, args.models):
            torch.set_num_threads(threads)
            rows = []
            for output, level in itertools.product(MODELS[name][1], range(4)):
                rows += rows_of(volume, name, output, level, threads, args.runs, Path(folder) / f"{level}.nii.gz")
            if name == "rare_unet":
                rows += training_rows(volume, threads, args.runs)
            take_in(path, rows)
            print(f"{name}, {threads} thread(s): done", flush=True)
    if torch.cuda.is_available():
        for name in args.models:
            outputs_and_levels = itertools.product(MODELS[name][1], range(4))
            take_in(path, [on_gpu(volume, name, output, level, args.runs) for output, level in outputs_and_levels])


if __name__ == "__main__":
    main()
