"""Keeps the results of docs/experiment.md: takes them in, and writes all its tables and figures from them.

    python tools/make_experiment.py --add NAME OUTPUT_DIR …  # what `run evaluating … --save_answers true` wrote
    pip install '.[docs]' && python tools/make_experiment.py

Results lie in docs/experiment/NAME/per_case.csv, with the slices of one case for figure 4; models.json holds their
order, titles and commands (``apart``: no network, or other scans, so neither bold nor in a difference; ``weights_of``:
the row whose weights they are); short trainings likewise in docs/experiment/ablations. Tables go between
``<!-- table: NAME -->`` and ``<!-- /table -->`` in docs/experiment.md, README.md and the bundle's README; the
metadata's ``eval_metrics`` are the shipped network's. Nothing is typed by hand.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import numpy as np
from experiment_results import (
    BUNDLE,
    CASE,
    DOCS,
    RESULTS,
    ROOT,
    add,
    add_published,
    benchmark,
    models,
    places,
    slice_of_case,
    summary,
)
from experiment_tables import OURS, TABLES

DOCUMENTS = (DOCS / "experiment.md", ROOT / "README.md", BUNDLE / "docs/README.md")
METADATA = BUNDLE / "configs/metadata.json"


def with_tables(text: str) -> str:
    """A document with its tables written anew."""
    pattern = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- /table -->)", re.DOTALL)
    return pattern.sub(lambda m: f"{m[1]}{TABLES[m[2]]()}\n{m[3]}", text)


def with_metrics(text: str) -> str:
    """The metadata with the shipped network's figures."""
    metadata = json.loads(text)
    metadata["eval_metrics"] = {
        f"dice_{grid}_scale_{scale}_{name}": round(entry["mean"], 4)
        for (measure, grid, name, scale), entry in summary(OURS[-1]).items()
        if measure == "dice" and scale != "average"
    }
    return json.dumps(metadata, indent=4, ensure_ascii=False) + "\n"


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
        add(args.add[0], [Path(folder) for folder in args.add[1:]])
        return
    for path in DOCUMENTS:
        path.write_text(with_tables(path.read_text()))
        print(path)
    METADATA.write_text(with_metrics(METADATA.read_text()))
    print(METADATA)
    from experiment_figures import draw_cases, draw_time  # needs matplotlib, the tables do not

    slices = {n: dict(np.load(RESULTS / n / "slices.npz")) for n in models() if (RESULTS / n / "slices.npz").exists()}
    draw_cases({models()[n]["title"]: s for n, s in slices.items()}, CASE, slice_of_case(), DOCS / "figure4.png")
    draw_time(
        {n: (e["title"], e["benchmark"], summary(n)) for n, e in models().items() if "benchmark" in e},
        benchmark(),
        DOCS / "figure6.png",
    )


if __name__ == "__main__":
    main()
