"""Times every model at every scale in one run and writes docs/experiment/benchmark.csv.

    python tools/benchmark.py

Median of ten runs after three to warm up, on one volume of 64×128×64 voxels at 1 mm and what it is at 2, 4 and 8 mm:
the network alone, the inferer with the choice of the side, and the whole way from the file to the label map. Then one
training step of all levels against one of level 0 alone. Weights are random: they do not change the time. Keep the
machine quiet.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose, SaveImaged
from torch.utils.flop_counter import FlopCounterMode

from rare_unet_networks.levels import scale_name

ROOT = Path(__file__).parents[1]
BUNDLE = ROOT / "bundles/hippocampus_mri_segmentation"
CONFIGS = BUNDLE / "configs"
SIZE = (64, 128, 64)
# model -> (deltas over inference.json, outputs)
MODELS = {
    "rare_unet": ((), ("native", "full", "both")),
    "rare_unet_paper": (("baselines/paper_network.json",), ("native",)),
    "unet_up": (("baselines/unet.json",), ("full",)),
}
COLUMNS = ("model", "scale", "output", "threads", "what", "seconds", "gflop", "parameters")


def parsed(deltas: tuple[str, ...], output: str) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / name) for name in ("inference.json", *deltas)])
    parser["bundle_root"], parser["network_output"] = str(BUNDLE), output
    parser.parse()
    return parser


def timed(function: Callable[[], object], runs: int) -> float:
    """Median seconds."""
    seconds = []
    for i in range(runs + 3):
        start = time.perf_counter()
        function()
        if i >= 3:
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


def rows_of(name: str, output: str, level: int, threads: int, runs: int, file: Path) -> list[tuple]:
    """Network and pipeline of one model at one scale."""
    parser = parsed(MODELS[name][0], output)
    net, inferer = parser.get_parsed_content("network_def").eval(), parser.get_parsed_content("inferer")
    before = parser.get_parsed_content("preprocessing")
    steps = parser.get_parsed_content("postprocessing").transforms
    after = Compose([t for t in steps if not isinstance(t, SaveImaged)])

    def whole() -> None:
        item = before({"image": str(file)})
        answer = inferer(item["image"][None], net)
        pred = {k: v[0] for k, v in answer.items()} if isinstance(answer, dict) else answer[0]
        after({**item, "pred": pred})

    # A network of a single level works at full size, whatever the scan's.
    works_at = min(level, net.num_levels - 1)
    kwargs = {"level": works_at, **({"output": output} if output != "native" and works_at else {})}
    x = torch.rand(1, 1, *(n >> works_at for n in SIZE))
    with torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            net(x, **kwargs)
        size = path_parameters(net, x, **kwargs)
        seconds = {"network": timed(lambda: net(x, **kwargs), runs), "pipeline": timed(whole, runs)}
        if inferer.side == "auto":
            scan = before({"image": str(file)})["image"][None]
            seconds["network and side"] = timed(lambda: inferer(scan, net), runs)
    gflop, scale = counter.get_total_flops() / 1e9, scale_name(level)
    return [(name, scale, output, threads, what, f"{s:.5f}", f"{gflop:.3f}", size) for what, s in seconds.items()]


def training_rows(threads: int, runs: int) -> list[tuple]:
    """A step on two 32×64×32 crops: of all levels, of level 0 alone, and the mean over the recipe's draws of levels."""
    parser = ConfigParser()
    parser.read_config(str(CONFIGS / "train.json"))
    parser.parse()
    net, loss = parser.get_parsed_content("network_def"), parser.get_parsed_content("loss")
    images = [torch.rand(2, 1, 32 >> d, 64 >> d, 32 >> d) for d in range(net.num_levels)]
    labels = [(image > 0.5).float() for image in images]

    def step(levels: list[int]) -> None:
        fine = [] if 0 in levels else [labels[0]]
        loss(net([images[d] for d in levels], levels=levels), [labels[d] for d in levels] + fine).backward()

    probs = parser.get_parsed_content("start_probs")
    starts = [timed(lambda d=d: step(list(range(d, net.num_levels))), runs) for d in range(len(probs))]
    found = {
        "all levels": starts[0],
        "mean of the recipe": sum(p * s for p, s in zip(probs, starts)),
        "level 0 alone": timed(lambda: step([0]), runs),
    }
    return [("rare_unet", 1, "", threads, f"training step, {n}", f"{s:.5f}", "", "") for n, s in found.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--output", type=Path, default=ROOT / "docs/experiment/benchmark.csv")
    args = parser.parse_args()
    logging.getLogger("rare_unet_networks").setLevel(logging.ERROR)  # the volume is larger than a crop: it would warn
    rows: list[tuple] = []
    with tempfile.TemporaryDirectory() as folder:
        for level in range(4):
            data = np.random.default_rng(level).random([n >> level for n in SIZE], dtype=np.float32)
            nib.save(nib.Nifti1Image(data, np.diag([2**level] * 3 + [1])), Path(folder) / f"{level}.nii.gz")
        for threads in args.threads:
            torch.set_num_threads(threads)
            for name, (_, outputs) in MODELS.items():
                for output, level in itertools.product(outputs, range(4)):
                    rows += rows_of(name, output, level, threads, args.runs, Path(folder) / f"{level}.nii.gz")
                print(f"{name}, {threads} thread(s): done")
            rows += training_rows(threads, args.runs)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with open(args.output, "w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    print(args.output)


if __name__ == "__main__":
    main()
