"""Keeps the results of the experiments: takes them in, and writes all their tables and figures from them.

    # takes in what `run evaluating … --save_answers true` wrote
    python docs/experiment/scripts/make_experiment.py --add TASK/NAME OUTPUT_DIR …
    pip install '.[docs]' && python docs/experiment/scripts/make_experiment.py

Results lie in docs/experiment/TASK/NAME/per_case.csv, with the slices of one case for its figure; models.json holds
their order, titles and commands (``apart``: no network, or other scans, so neither bold nor in a difference;
``weights_of``: the row whose weights they are); short trainings likewise in docs/experiment/TASK/ablations. Tables go
between ``<!-- table: TASK/NAME -->`` and ``<!-- /table -->`` in the documents of the tasks and the READMEs; the
metadata's ``eval_metrics`` are the shipped network's. Nothing is typed by hand.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import numpy as np
from experiment_results import add, add_published, benchmark, models, places, slice_of_case, summary
from experiment_tables import TABLES
from experiment_tasks import ROOT, TASKS, Task

SHIPPED_GRIDS = ("native", "full")  # what the bundle's evaluate.json scores; the paper's labels are an overlay's
EXPORTS = ROOT / "docs/exports.md"  # its tables are of docs/experiment/scripts/compare_runtimes.py
DOCUMENTS = sorted(
    {ROOT / "README.md", EXPORTS, *(p for t in TASKS.values() for p in (t.document, t.bundle / "docs/README.md"))}
)


def with_tables(text: str) -> str:
    """A document with its tables written anew."""
    pattern = re.compile(r"(<!-- table: (\w+)/(\w+) -->\n).*?(<!-- /table -->)", re.DOTALL)
    return pattern.sub(lambda m: f"{m[1]}{TABLES[m[3]](TASKS[m[2]])}\n{m[4]}", text)


def with_metrics(text: str, task: Task) -> str:
    """A bundle's metadata with the shipped network's figures."""
    metadata = json.loads(text)
    found = summary(task, task.shipped) if task.shipped in models(task) else {}
    metadata["eval_metrics"] = {
        f"dice_{grid}_scale_{scale}_{name}": round(entry["mean"], 4)
        for (measure, grid, name, scale), entry in found.items()
        if measure == "dice" and scale != "average" and grid in SHIPPED_GRIDS
    }
    return json.dumps(metadata, indent=4, ensure_ascii=False) + "\n"


def draw(task: Task) -> None:
    """Figures 4 (or 5) and 6: the answers for one case, and Dice against time."""
    from experiment_figures import draw_cases, draw_time  # needs matplotlib, the tables do not

    results = task.results
    slices = {
        n: dict(np.load(results / n / "slices.npz")) for n in models(task) if (results / n / "slices.npz").exists()
    }
    if task.case and not task.file("imagesTr").exists():
        print(f"{task.file('imagesTr')} is not here: the figure of its cases stays as it is")
    elif task.case and slices:
        answers = {models(task)[n]["title"]: s for n, s in slices.items()}
        draw_cases(task, answers, slice_of_case(task), results / "cases.png")
    timed = {n: (e["title"], e["benchmark"], summary(task, n)) for n, e in models(task).items() if "benchmark" in e}
    if timed and benchmark(task):
        draw_time(task, timed, benchmark(task), results / "time.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--add", nargs="+", metavar=("NAME", "OUTPUT_DIR"), help="take in an evaluation's results")
    parser.add_argument("--published", type=Path, metavar="CSV", help="take in scores of published predictions")
    args = parser.parse_args()
    if args.published:
        add_published(args.published)
        return
    if args.add:
        if len(args.add) < 2 or args.add[0] not in places():
            parser.error(f"--add takes one of {sorted(places())} and the folders of its evaluations, got {args.add}")
        add(*places()[args.add[0]], [Path(folder) for folder in args.add[1:]])
        return
    for path in DOCUMENTS:
        path.write_text(with_tables(path.read_text()))
        print(path)
    for task in TASKS.values():
        if task.shipped:
            metadata = task.bundle / "configs/metadata.json"
            metadata.write_text(with_metrics(metadata.read_text(), task))
            print(metadata)
        draw(task)


if __name__ == "__main__":
    main()
