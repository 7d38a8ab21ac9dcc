"""Tables and figure of docs/any_resolution.md, from the scores of evaluations on simulated acquisitions.

    # takes in what `run evaluating` with overlays/acquisitions.json wrote
    python docs/experiment/scripts/acquisition_tables.py --add NAME OUTPUT_DIR ...
    pip install '.[docs]' && python docs/experiment/scripts/acquisition_tables.py

Scores lie in docs/experiment/hippocampus/acquisitions/NAME.csv, one row for each case, spacing and level. Tables go
between ``<!-- table: NAME -->`` and ``<!-- /table -->``.
"""

from __future__ import annotations

import argparse
import csv
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

from experiment_tasks import ROOT, person
from monai.bundle import ConfigParser

from rare_unet_networks.baselines import paired_differences
from rare_unet_networks.levels import ResolutionLevels

DOCUMENT = ROOT / "docs/any_resolution.md"
FIGURE = ROOT / "docs/any_resolution.png"
RESULTS = ROOT / "docs/experiment/hippocampus/acquisitions"
INFERENCE = ROOT / "bundles/hippocampus_mri_segmentation/configs/inference.json"
COLUMNS = ("case", "spacing", "level", "anterior", "posterior", "volume_error")
CLASSES = ("anterior", "posterior")
SHORT = ("1", "1.4", "2", "3", "4", "5", "6", "8", "1×1×3", "1×1×5", "1×1×7", "1×1×10", "2×2×5")
README = ("1", "2", "3", "5", "8", "1×1×5", "2×2×5")
# Other ways to use the weights, and one other training: file, title.
VARIANTS = {
    "shipped": "the weights before their coarse levels were trained alone",
    "shifted": "mean with a copy that is shifted by one voxel",
    "shifted_eight": "mean of eight copies: shifted or not along each axis",
    "flipped": "mean with a copy that is flipped left to right",
    "coarser": "mean with the next coarser level",
    "scratch": "trained from scratch with acquisitions (4,550 steps), not calibrated",
}
OURS, RIVAL, BEFORE = "rare_unet", "unet_aug_up", "rare_unet_0.6.1"

Row = Mapping[str, str]


def add(name: str, runs: Sequence[Path]) -> None:
    """Takes in the scores on the 1 mm grid of evaluations that have the region ``whole``."""
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for run in runs:
        with open(run / "metrics/per_case.csv", newline="") as file:
            for row in csv.DictReader(file):
                if row["grid"] != "full":
                    continue
                key = (row["case"], row["spacing"], row["level"])
                merged = rows.setdefault(key, dict(zip(COLUMNS, key)))
                if row["class"] == "whole":
                    merged["volume_error"] = row["volume_error"]
                else:
                    merged[row["class"]] = row["dice"]
    RESULTS.mkdir(exist_ok=True)
    with open(RESULTS / f"{name}.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows[key] for key in sorted(rows))
    print(RESULTS / f"{name}.csv", len(rows), "rows")


def title(spacing: str) -> str:
    """Name of a spacing whatever its orientation: ``1×1×5`` for ``5x1x1``, ``5`` for ``5x5x5``."""
    axes = sorted(map(float, spacing.split("x")))
    return f"{axes[0]:g}" if axes[0] == axes[-1] else "×".join(f"{axis:g}" for axis in axes)


def axes_of(name: str) -> list[float]:
    """Voxel size of a title."""
    axes = [float(axis) for axis in name.split("×")]
    return axes * 3 if len(axes) == 1 else axes


def read(name: str) -> dict[tuple[str, int], list[Row]]:
    """Rows of a model by title of the spacing and level."""
    path = RESULTS / f"{name}.csv"
    found: dict[tuple[str, int], list[Row]] = defaultdict(list)
    if path.exists():
        with open(path, newline="") as file:
            for row in csv.DictReader(file):
                found[title(row["spacing"]), int(row["level"])].append(row)
    return found


def dice(rows: Sequence[Row]) -> float:
    """Mean over the cases of each class, then over the classes."""
    return fmean(fmean(float(row[name]) for row in rows) for name in CLASSES)


def volume(rows: Sequence[Row]) -> str:
    """Mean and standard deviation of the error of the whole structure's volume."""
    errors = [float(row["volume_error"]) for row in rows]
    return f"{fmean(errors):+.1f} ± {stdev(errors):.1f} %"


def levels() -> ResolutionLevels:
    """The shipped resolution levels."""
    parser = ConfigParser()
    parser.read_config(INFERENCE)
    return parser.get_parsed_content("levels")


def routed(found: Mapping[tuple[str, int], list[Row]], router: ResolutionLevels) -> dict[str, tuple[int, list[Row]]]:
    """Level and rows of each spacing at the level that the router chooses, or at the only one that there is."""
    chosen = {}
    for name in dict.fromkeys(name for name, _ in found):
        level = router.level_of_spacing(axes_of(name))
        if (name, level) not in found:
            level = next(d for n, d in found if n == name)
        chosen[name] = (level, found[name, level])
    return chosen


def _long(rows: Sequence[Row]) -> list[dict]:
    return [
        {"case": r["case"], "scale": r["spacing"], "grid": "full", "class": c, "dice": float(r[c])}
        for r in rows
        for c in CLASSES
    ]


def difference(ours: Sequence[Row], theirs: Sequence[Row]) -> str:
    """Mean difference of Dice with its 95 % interval over subjects; orientations are averaged for each case."""
    merged = [[{**row, "scale": "all"} for row in _mean_over_orientations(rows)] for rows in (ours, theirs)]
    found = paired_differences(merged[0], merged[1], person)[0]
    return f"{found['difference']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"


def _mean_over_orientations(rows: Sequence[Row]) -> list[dict]:
    values = defaultdict(list)
    for row in _long(rows):
        values[row["case"], row["class"]].append(row["dice"])
    return [{"case": c, "grid": "full", "class": k, "dice": fmean(v)} for (c, k), v in values.items()]


def short_table() -> str:
    """The spacings of the README against the rival and the weights of 0.6.1."""
    router = levels()
    ours, rival, before = (routed(read(name), router) for name in (OURS, RIVAL, BEFORE))
    lines = [
        "| spacing (mm) | level | RARE-UNet | volume error | version 0.6.1 | U-Net+Aug, Up | RARE-UNet minus it |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in SHORT:
        if name not in ours:
            continue
        level, rows = ours[name]
        old = f"{dice(before[name][1]):.3f}" if name in before else "–"
        theirs = f"{dice(rival[name][1]):.3f}" if name in rival else "–"
        minus = difference(rows, rival[name][1]) if name in rival else "–"
        lines.append(f"| {name} | {level} | {dice(rows):.3f} | {volume(rows)} | {old} | {theirs} | {minus} |")
    return "\n".join(lines)


def readme_table() -> str:
    """Dice at the spacings of the README."""
    router = levels()
    ours, rival = routed(read(OURS), router), routed(read(RIVAL), router)
    lines = [f"| | {' | '.join(f'{name} mm' for name in README)} |", "|---|" + "---|" * len(README)]
    for model, found in (("RARE-UNet", ours), ("U-Net+Aug, Up", rival)):
        lines.append(f"| {model} | {' | '.join(f'{dice(found[name][1]):.3f}' for name in README)} |")
    return "\n".join(lines)


def variant_table() -> str:
    """Dice of other ways to use the network; for each spacing at the level that the router chooses."""
    router = levels()
    found = {name: routed(read(f"variant_{name}"), router) for name in VARIANTS}
    spacings = [name for name in SHORT if name in found["shipped"]]
    lines = [f"| | {' | '.join(f'{name} mm' for name in spacings)} |", "|---|" + "---|" * len(spacings)]
    for name, text in VARIANTS.items():
        cells = [f"{dice(found[name][spacing][1]):.3f}" if spacing in found[name] else "–" for spacing in spacings]
        lines.append(f"| {text} | {' | '.join(cells)} |")
    return "\n".join(lines)


def level_table() -> str:
    """Every spacing at each level that it could enter; the router's level is bold."""
    router, found = levels(), read(OURS)
    lines = ["| spacing (mm) | level 0 | level 1 | level 2 | level 3 | below the best |", "|---|---|---|---|---|---|"]
    for name in sorted(dict.fromkeys(n for n, _ in found), key=lambda n: (len(axes_of(n.split("×")[0])), _order(n))):
        scores = {level: dice(rows) for (n, level), rows in found.items() if n == name}
        chosen = router.level_of_spacing(axes_of(name))
        cells = [
            "" if d not in scores else f"**{scores[d]:.3f}**" if d == chosen else f"{scores[d]:.3f}" for d in range(4)
        ]
        below = f"{max(scores.values()) - scores[chosen]:.3f}" if chosen in scores else "–"
        lines.append(f"| {name} | {' | '.join(cells)} | {below} |")
    return "\n".join(lines)


def _order(name: str) -> tuple:
    axes = axes_of(name)
    return axes[0] != axes[-1], axes[0], math.prod(axes)


def draw() -> None:
    """Dice and volume error against the spacing of isotropic scans: each level, the router, the rival."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    router, found, rival = levels(), read(OURS), read(RIVAL)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    isotropic = [(name, level) for name, level in found if "×" not in name]
    for level in range(router.num_levels):
        points = sorted((float(n), dice(found[n, d])) for n, d in isotropic if d == level)
        left.plot(*zip(*points), marker=".", linewidth=1, label=f"level {level}")
    names = sorted({n for n, _ in isotropic}, key=float)
    chosen = routed(found, router)
    for axis, measure in ((left, dice), (right, _mean_error)):
        axis.plot([float(n) for n in names], [measure(chosen[n][1]) for n in names], "k-", label="the router's level")
        theirs = sorted((float(n), measure(rows)) for (n, _), rows in rival.items() if "×" not in n)
        if theirs:
            axis.plot(*zip(*theirs), "k:", label="U-Net+Aug, Up")
        axis.set(xscale="log", xlabel="spacing of an isotropic scan (mm)", xticks=[1, 2, 4, 8], xticklabels="1248")
        axis.grid(alpha=0.3)
    left.set(ylabel="Dice on the 1 mm grid, mean of the two classes", ylim=(0.6, 0.92))
    right.set(ylabel="mean error of the whole volume (%)")
    right.axhline(0, color="grey", linewidth=0.8)
    left.legend(fontsize=8)
    right.legend(fontsize=8)
    figure.savefig(FIGURE, dpi=110)
    print(FIGURE)


def _mean_error(rows: Sequence[Row]) -> float:
    return fmean(float(row["volume_error"]) for row in rows)


TABLES = {
    "acquisitions": short_table,
    "readme_acquisitions": readme_table,
    "acquisition_levels": level_table,
    "acquisition_variants": variant_table,
}


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--add", nargs="+", metavar=("NAME", "OUTPUT_DIR"))
    args = parser.parse_args()
    if args.add:
        add(args.add[0], [Path(run) for run in args.add[1:]])
        return
    pattern = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- /table -->)", re.DOTALL)
    for document in (DOCUMENT, ROOT / "README.md"):
        text = document.read_text()
        text = pattern.sub(lambda m: f"{m[1]}{TABLES[m[2]]()}\n{m[3]}" if m[2] in TABLES else m[0], text)
        document.write_text(text)
    draw()


if __name__ == "__main__":
    main()
