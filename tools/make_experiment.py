"""Keeps the results of docs/experiment.md: takes them in, and writes all its tables and figures from them.

    python tools/make_experiment.py --add NAME OUTPUT_DIR …  # what `run evaluating … --save_answers true` wrote
    pip install '.[docs]' && python tools/make_experiment.py

Results lie in docs/experiment/NAME/per_case.csv, with the slices of one case for figure 4; models.json holds their
order, titles and commands. Tables go between ``<!-- table: NAME -->`` and ``<!-- /table -->`` in docs/experiment.md,
README.md and the bundle's README; the metadata's ``eval_metrics`` are the shipped network's. Nothing is typed by hand.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import re
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from rare_unet_networks import paired_differences, read_rows, summarise

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
RESULTS = DOCS / "experiment"
BUNDLE = ROOT / "bundles/hippocampus_mri_segmentation"
CASE = "hippocampus_067"  # of figure 4: the bundle's labelled sample
SCALES = ("1", "0.5", "0.25", "0.125")
HEADS = {"1": "1 (1 mm)", "0.5": "1/2 (2 mm)", "0.25": "1/4 (4 mm)", "0.125": "1/8 (8 mm)"}
CLASSES = ("anterior", "posterior")
OURS = ("rare_unet_60", "rare_unet")  # with the effort of the rivals; shipped
# Below scale 1 only a coarse map of these was published: detail was lost before it could be scored at 1 mm.
COARSE_ONLY = ("UNet-Up", "UNet+Aug-Up", "nnUNet-spacing")


def subject(case: str) -> int:
    """Volumes 2k - 1 and 2k of Task04 are the two hippocampi of one person."""
    return (int(case.split("_")[1]) + 1) // 2


@cache
def models() -> dict[str, dict[str, Any]]:
    """The models whose results are there, by name, in the order of models.json."""
    listed = json.loads((RESULTS / "models.json").read_text())
    return {name: entry for name, entry in listed.items() if (RESULTS / name / "per_case.csv").exists()}


@cache
def rows(name: str) -> tuple[dict[str, Any], ...]:
    return tuple(read_rows(RESULTS / name / "per_case.csv"))


@cache
def summary(name: str) -> dict[tuple[str, str, str, str], dict[str, Any]]:
    return {(s["measure"], s["grid"], s["class"], s["scale"]): s for s in summarise(rows(name))}


def slice_of_case() -> int:
    """Index of the sagittal slice that shows most of the structure, on the first axis of the 1 mm grid."""
    label = np.asarray(nib.load(BUNDLE / f"sample/Task04_Hippocampus/labelsTr/{CASE}.nii.gz").dataobj)
    return int((label > 0).sum(axis=(1, 2)).argmax())


def add(name: str, output_dirs: list[Path]) -> None:
    """Takes in what an evaluation wrote, or several evaluations of one scale each."""
    folder = RESULTS / name
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[list[str]] = []
    slices = {}
    for output_dir in output_dirs:
        with open(output_dir / "metrics" / "per_case.csv", newline="") as file:
            found = list(csv.reader(file))
        lines += found if not lines else found[1:]
        for scale in SCALES:
            path = output_dir / "answers" / "full" / scale / f"{CASE}.nii.gz"
            if path.exists():
                slices[scale] = np.asarray(nib.load(path).dataobj)[slice_of_case()]
    with open(folder / "per_case.csv", "w", newline="") as file:
        csv.writer(file).writerows(lines)
    if slices:
        np.savez_compressed(folder / "slices.npz", **slices)
    print(f"{folder}: per_case.csv, slices of scales {', '.join(slices) or 'none (--save_answers true keeps them)'}")


def add_published(path: Path) -> None:
    """Takes in scores of published predictions: model, case, scale, grid, class, dice."""
    with open(path, newline="") as file:
        found = list(csv.DictReader(file))
    for model in dict.fromkeys(row["model"] for row in found):
        target = RESULTS / "paper_split" / model / "per_case.csv"
        target.parent.mkdir(parents=True, exist_ok=True)
        columns = ("case", "scale", "grid", "class", "dice")
        lines = [[f"{float(r[c]):g}" if c == "scale" else r[c] for c in columns] for r in found if r["model"] == model]
        with open(target, "w", newline="") as file:
            csv.writer(file).writerows([columns, *lines])
        print(target)


def cell(entry: dict[str, Any] | None, digits: int = 3) -> str:
    if entry is None or math.isnan(entry["mean"]):
        return "–"
    left_out = f" (n {entry['n']})" if entry["left_out"] else ""
    sd = "" if math.isnan(entry["sd"]) else f" ± {entry['sd']:.{digits}f}"
    return f"{entry['mean']:.{digits}f}{sd}{left_out}"


def table(head: list[str], lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines])


def by_scale(measure: str, grid: str, names: list[str] | None = None, digits: int = 3, best: bool = True) -> str:
    """A line per model, a column per scale and the average; the best network of each column is bold."""
    columns = [*SCALES, "average"]
    listed = json.loads((RESULTS / "models.json").read_text())
    unknown = set(names or ()) - set(listed)
    if unknown:
        raise KeyError(f"{unknown} must be in models.json")
    names = [n for n in names or models() if n in models() and (measure, grid, "mean", "average") in summary(n)]
    entries = {n: [summary(n).get((measure, grid, "mean", s)) for s in columns] for n in names}
    for n in names:  # a network of one scale has no average over scales
        if sum(e is not None for e in entries[n][:-1]) < len(SCALES):
            entries[n][-1] = None
    lines = []
    for n in names:
        cells = []
        for i, entry in enumerate(entries[n]):
            rivals = [entries[m][i]["mean"] for m in names if entries[m][i] and not models()[m].get("no_network")]
            bold = best and entry and rivals and entry["mean"] == max(rivals) and not models()[n].get("no_network")
            cells.append(f"**{cell(entry, digits)}**" if bold else cell(entry, digits))
        lines.append([models()[n]["title"], *cells])
    return table(["", *HEADS.values(), "average"], lines)


def by_class(grid: str) -> str:
    """The paper's Table 4: a line per model and scale, a column per class."""
    lines = []
    for scale in [*SCALES, "average"]:
        for name, entry in models().items():
            found = [summary(name).get(("dice", grid, c, scale)) for c in CLASSES]
            if all(found) and (scale != "average" or len({s for _, g, _, s in summary(name) if g == grid}) > 4):
                words = HEADS.get(scale, "average over scales")
                lines.append([f"{entry['title']}, {words}", *map(cell, found)])
    return table(["", *CLASSES], lines)


def differences(grid: str) -> str:
    """Ours minus each rival, with the bootstrap interval."""
    lines = []
    for ours in (name for name in OURS if name in models()):
        for name, entry in models().items():
            if name in OURS or entry.get("no_network"):
                continue
            found = {d["scale"]: d for d in paired_differences(rows(ours), rows(name), subject) if d["grid"] == grid}
            cells = [
                f"{d['difference']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}]" if (d := found.get(s)) else "–"
                for s in SCALES
            ]
            lines.append([f"{models()[ours]['title']} − {entry['title']}", *cells])
    return table(["", *HEADS.values()], lines)


def trained() -> str:
    lines = [
        [e["title"], e["given"], f"`{e['train']}`" if e.get("train") else "–", f"`{e['evaluate']}`"]
        for e in models().values()
    ]
    return table(["", "what it was given", "training", "evaluating"], lines)


def tried(grid: str) -> str:
    """A line per ablation, with the options of its training."""
    lines = []
    for name, entry in json.loads((RESULTS / "ablations/models.json").read_text()).items():
        found = summarise(read_rows(RESULTS / "ablations" / name / "per_case.csv"))
        means = {s["scale"]: s for s in found if (s["measure"], s["grid"], s["class"]) == ("dice", grid, "mean")}
        lines.append([entry["title"], *(cell(means.get(s)) for s in SCALES), f"`{entry['options']}`"])
    return table(["", *HEADS.values(), "options of `run training`"], lines)


def published(only_unseen: bool) -> str:
    """The authors' models and ours on their test volumes, in their protocol, case by case."""
    folder = RESULTS / "paper_split"
    if not (folder / "rare_unet" / "per_case.csv").exists():
        return "(not measured yet)"
    ours = read_rows(folder / "rare_unet" / "per_case.csv")
    validation = set(json.loads((BUNDLE / "configs/splits.json").read_text())["validation"])
    ours = [r for r in ours if not (only_unseen and r["case"] in validation)]
    grids = {"native_nearest": "native", "full": "full"}  # their labels, our answers read by the same rule
    ours = [{**r, "grid": grids[r["grid"]]} for r in ours if r["grid"] in grids]
    cases = {r["case"] for r in ours}
    lines = []
    files = [p for p in sorted(folder.glob("*/per_case.csv")) if p.parent.name != "rare_unet"]
    theirs = {p.parent.name: read_rows(p) for p in files}
    for grid in ("native", "full"):
        for name, found in {"ours": ours, **theirs}.items():
            lost = grid == "full" and name in COARSE_ONLY
            found = [r for r in found if r["case"] in cases and r["grid"] == grid and not (lost and r["scale"] != "1")]
            means = {s["scale"]: s for s in summarise(found) if s["class"] == "mean" and s["measure"] == "dice"}
            cells = [cell(means.get(s)) for s in SCALES]
            if name != "ours":
                gaps = {d["scale"]: d for d in paired_differences(ours, found, subject) if d["grid"] == grid}
                cells = [
                    f"{c} ({d['difference']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}])" if (d := gaps.get(s)) else c
                    for c, s in zip(cells, SCALES)
                ]
            lines.append([f"{name}, {'coarse grid' if grid == 'native' else '1 mm grid'}", *cells])
    return table([f"{len(cases)} volumes", *HEADS.values()], lines)


@cache
def benchmark() -> dict[tuple[str, ...], dict[str, str]]:
    path = RESULTS / "benchmark.csv"
    if not path.exists():
        return {}
    with open(path, newline="") as file:
        return {
            (r["model"], f"{float(r['scale']):g}", r["output"], r["threads"], r["what"]): r
            for r in csv.DictReader(file)
        }


def times(*parts: str) -> str:
    """A line per model, output, part and number of threads, where it was measured at all scales."""
    lines = []
    for model, output, part in dict.fromkeys((k[0], k[2], k[4]) for k in benchmark() if k[4] in parts):
        for threads in ("1", "2"):
            found = [benchmark().get((model, s, output, threads, part)) for s in SCALES]
            if not all(found):
                continue
            seconds = [float(r["seconds"]) for r in found]
            up = [benchmark()["unet_up", s, "full", threads, parts[0]] for s in SCALES]
            shares = [t / float(u["seconds"]) for t, u in zip(seconds, up)]
            cells = [f"{1000 * t:.0f} ms (1/{seconds[0] / t:.1f}; {q:.2f})" for t, q in zip(seconds, shares)]
            which = f" ({part})" if part != parts[0] else ""
            lines.append([f"{model}{which}, {output}, {threads} thread(s)", *cells])
    return table(["", *HEADS.values()], lines)


def costs() -> str:
    lines = []
    for model, output in dict.fromkeys((k[0], k[2]) for k in benchmark() if k[4] == "network"):
        found = [benchmark()[model, s, output, "1", "network"] for s in SCALES]
        ratios = [float(found[0]["gflop"]) / float(r["gflop"]) for r in found]
        cells = [f"{float(r['gflop']):.1f} (1/{q:.1f}), {int(r['parameters']):,}" for r, q in zip(found, ratios)]
        lines.append([f"{model}, {output}", *cells])
    return table(["GFLOP and parameters on the path", *HEADS.values()], lines)


def step() -> str:
    lines = []
    for threads in ("1", "2"):
        names = ("level 0 alone", "all levels", "mean of the recipe")
        found = [benchmark().get(("rare_unet", "1", "", threads, f"training step, {name}")) for name in names]
        if all(found):
            alone, every, mean = (float(r["seconds"]) for r in found)
            cells = [f"{alone:.3f} s", *(f"{s:.3f} s ({s / alone:.2f})" for s in (every, mean))]
            lines.append([threads, *cells])
    return table(["threads", "level 0 alone", "all levels", "mean of the recipe's draws"], lines)


README_MODELS = ["rare_unet", "unet_aug_full_up", "mean_shape"]
TABLES = {
    "native": lambda: by_scale("dice", "native"),
    "full": lambda: by_scale("dice", "full"),
    "native_nearest": lambda: by_scale("dice", "native_nearest"),
    "hd95": lambda: by_scale("hd95", "full", digits=2, best=False),
    "volume": lambda: by_scale("volume_error", "full", digits=1, best=False),
    "class_native": lambda: by_class("native"),
    "class_full": lambda: by_class("full"),
    "differences_native": lambda: differences("native"),
    "differences_full": lambda: differences("full"),
    "trained": trained,
    "tried_full": lambda: tried("full"),
    "tried_native": lambda: tried("native"),
    "published_all": lambda: published(only_unseen=False),
    "published_unseen": lambda: published(only_unseen=True),
    "times_network": lambda: times("network", "network and side"),
    "times_pipeline": lambda: times("pipeline"),
    "costs": costs,
    "step": step,
    "readme_native": lambda: by_scale("dice", "native", README_MODELS),
    "readme_full": lambda: by_scale("dice", "full", README_MODELS),
}


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
        if len(args.add) < 2 or args.add[0] not in json.loads((RESULTS / "models.json").read_text()):
            parser.error(f"--add takes a name of models.json and the folders of its evaluations, got {args.add}")
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
