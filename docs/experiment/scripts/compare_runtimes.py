"""Compares the runtimes of ``run inferring --runtime …`` with eager and writes docs/experiment/TASK/runtimes.csv.

    python -m monai.bundle run exporting --config_file "['…/inference.json','…/export.json']"
    python docs/experiment/scripts/compare_runtimes.py --task hippocampus

On validation cases and what they are at 1/2, 1/4 and 1/8, as ``run evaluating`` makes them. Of each scale: the largest
difference of a logit, in all calls of the network that the inferer makes; the least Dice of the label maps that come of
it, of any class and scan, on the scan's grid and on that of level 0; the seconds that all these calls take in each,
medians of ``--runs``, taken in turn. With ``--runs 0`` nothing is timed: on a busy machine times mean nothing. Lines of
other runtimes and scales stay in the file. The tables of docs/exports.md are written anew.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from experiment_results import lines_of, write_lines
from experiment_tasks import TASKS, Task
from make_experiment import EXPORTS, with_tables
from monai.bundle import ConfigParser
from monai.transforms import Compose

from rare_unet_networks.levels import format_scale
from rare_unet_networks.metrics.multi_scale import dice_per_class
from rare_unet_networks.runtimes.load import EXPORTED, RUNTIMES, load_runtime

COLUMNS = ("runtime", "version", "scale", "scans", "difference", "dice", "threads", "seconds_eager", "seconds")
PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino"}  # the others come with torch


def tensors(answer: Any) -> list[torch.Tensor]:
    """The logits of a call, whatever ``output`` it asked for."""
    return [answer] if isinstance(answer, torch.Tensor) else list(answer)


class Recorder:
    """A network that keeps what it was asked and what it answered."""

    def __init__(self, network: Callable[..., Any]) -> None:
        self.network = network
        self.calls: list[tuple[torch.Tensor, dict[str, Any], list[torch.Tensor]]] = []

    def __call__(self, x: torch.Tensor, **kwargs: Any) -> Any:
        answer = self.network(x, **kwargs)
        self.calls.append((x, kwargs, tensors(answer)))
        return answer

    def difference(self, other: Recorder) -> float:
        """How far the logits that another network gave to the same inferer are off at most."""
        if [x.shape for x, _, _ in self.calls] != [x.shape for x, _, _ in other.calls]:
            return math.inf  # it was asked something else, after an answer that was another
        answers = zip(self.calls, other.calls)
        largest = [(a - b).abs().max() for (*_, ours), (*_, theirs) in answers for a, b in zip(ours, theirs)]
        return float(torch.stack(largest).max())  # NaN if any is

    def seconds(self, networks: Sequence[Callable[..., Any]], runs: int) -> list[float]:
        """Median seconds of all calls, for each of the networks; one run is to warm up."""
        taken: list[list[float]] = [[] for _ in networks]
        for _ in range(runs + 1):
            for network, times in zip(networks, taken):
                start = time.perf_counter()
                for x, kwargs, _ in self.calls:
                    network(x, **kwargs)
                times.append(time.perf_counter() - start)
        return [median(times[1:]) for times in taken]


def compare(
    task: Task, runtimes: Sequence[str], runs: int, levels: Sequence[int], cases: int, **overrides: Any
) -> list[tuple]:
    """A line per runtime and scale.

    Args:
        task: the task.
        runtimes: their names; the exports have to be there.
        runs: 0 to time nothing.
        levels: the scales.
        cases: how many, the first ones of the split.
        overrides: of the bundle's inference.json and evaluate.json.
    """
    parser = ConfigParser()
    parser.read_config([str(task.bundle / "configs" / name) for name in ("inference.json", "evaluate.json")])
    for key, value in {
        "bundle_root": str(task.bundle),
        "val_levels": list(levels),
        "device": "cpu",
        **overrides,
    }.items():
        parser[key] = value
    parser.parse()
    network = parser.get_parsed_content("network_def").eval()
    checkpoint, export_dir = (parser.get_parsed_content(key) for key in ("checkpoint", "export_dir"))
    network.load_state_dict(torch.load(checkpoint, weights_only=True))
    networks = {name: load_runtime(name, network, export_dir, checkpoint) for name in runtimes}
    inferer = parser.get_parsed_content("inferer")
    to_maps = Compose([*parser.get_parsed_content("to_scan_grid"), *parser.get_parsed_content("to_labels")])

    def maps(item: dict, answer: Any) -> list[torch.Tensor]:
        pred = {k: v[0] for k, v in answer.items()} if isinstance(answer, dict) else answer[0]
        item = to_maps({**item, "pred": pred})
        return [item["pred"], item["pred_fine"]]

    found: dict[tuple[str, int], list[tuple]] = {(name, level): [] for name in runtimes for level in levels}
    for item in islice(parser.get_parsed_content("dataset"), cases * len(levels)):  # a case at all levels, the next
        if "label" not in item:
            raise ValueError(f"every scan must be readable, got {item}.")
        image, level, recorder = item["image"][None], int(item["level"]), Recorder(network)
        expected = maps(item, inferer(image, recorder))
        for name, exported in networks.items():
            again = Recorder(exported)
            pairs = zip(maps(item, inferer(image, again)), expected)
            dice = [d for a, b in pairs for d in dice_per_class(a, b, len(task.classes) + 1) if not math.isnan(d)]
            seconds = recorder.seconds((network, exported), runs) if runs else (math.nan, math.nan)
            found[name, level].append((recorder.difference(again), min(dice, default=1.0), *seconds))
            print(f"{task.name}, {Path(item['image'].meta['filename_or_obj']).name}, {name}, level {level}", flush=True)
    return [
        (
            name,
            f"{PACKAGES.get(name, 'torch')} {version(PACKAGES.get(name, 'torch'))}",
            format_scale(level),
            len(scans),
            f"{max(s[0] for s in scans):.1e}",
            f"{min(s[1] for s in scans):.5f}",
            torch.get_num_threads() if runs else "",
            *(f"{sum(s[i] for s in scans):.4f}" if runs else "" for i in (2, 3)),
        )
        for (name, level), scans in found.items()
    ]


def take_in(path: Path, rows: Sequence[tuple]) -> None:
    """Adds lines to the file, in place of those of the same runtime and scale."""
    lines = {(r["runtime"], r["scale"]): r for r in lines_of(path)}
    lines.update({(row[0], row[2]): dict(zip(COLUMNS, map(str, row))) for row in rows})
    in_order = sorted(lines.values(), key=lambda r: (RUNTIMES.index(r["runtime"]), -float(r["scale"])))
    write_lines(path, COLUMNS, in_order)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=[name for name, task in TASKS.items() if task.shipped], required=True)
    parser.add_argument("--runtimes", choices=EXPORTED, nargs="+", default=list(EXPORTED))
    parser.add_argument("--levels", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--cases", type=int, default=2, help="as many of the first validation cases")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--dataset_dir", type=Path, help="that of the task's figure by default")
    parser.add_argument("--export_dir", type=Path, help="output/exports of the bundle by default")
    args = parser.parse_args()
    task = TASKS[args.task]
    folders = {"dataset_dir": args.dataset_dir or task.dataset, "export_dir": args.export_dir}
    overrides = {key: str(folder) for key, folder in folders.items() if folder}
    if not folders["dataset_dir"].is_dir():  # MONAI would wrap what is said of it
        parser.error(f"--dataset_dir must be a folder, {folders['dataset_dir']} is none")
    try:
        rows = compare(task, args.runtimes, args.runs, args.levels, args.cases, **overrides)
    except (ValueError, ModuleNotFoundError) as error:  # no export, or no package that runs it
        parser.error(str(error))
    take_in(task.results / "runtimes.csv", rows)
    EXPORTS.write_text(with_tables(EXPORTS.read_text()))


if __name__ == "__main__":
    main()
