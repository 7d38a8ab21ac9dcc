"""Writes the tables of README.md and of a bundle's docs/README.md from the summary.csv files of ``run evaluating``.

    python tools/make_tables.py NETWORK/summary.csv MEAN_SHAPE/summary.csv

Each file keeps a block between ``<!-- table -->`` and ``<!-- /table -->``; everything else is left alone. The
metadata's ``eval_metrics`` get the network's figures.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUNDLE = ROOT / "bundles/hippocampus_mri_segmentation"
SCALES = {"1": "1 (1 mm)", "0.5": "1/2 (2 mm)", "0.25": "1/4 (4 mm)", "0.125": "1/8 (8 mm)", "average": "average"}
BEGIN, END = "<!-- table -->", "<!-- /table -->"


def read(path: str) -> dict[tuple[str, str, str], dict[str, str]]:
    with open(path, newline="") as file:
        return {(row["grid"], row["class"], row["scale"]): row for row in csv.DictReader(file)}


def cell(row: dict[str, str], sd: bool = True) -> str:
    left_out = f" (n {row['n']})" if int(row["left_out"]) else ""
    return f"{float(row['mean']):.3f}" + (f" ± {float(row['sd']):.3f}" if sd else "") + left_out


def table(network: dict, mean_shape: dict) -> str:
    lines = ["| Dice on the 42 validation volumes | " + " | ".join(SCALES.values()) + " |", "|---" * 6 + "|"]
    for grid, words in (("native", "on the coarse scan's own grid"), ("full", "brought back to 1 mm")):
        for name in ("anterior", "posterior", "mean"):
            cells = [cell(network[grid, name, scale], sd=scale != "average") for scale in SCALES]
            title = f"RARE-UNet, {name}, {words}"
            lines.append(f"| {title} | " + " | ".join(f"**{c}**" if name == "mean" else c for c in cells) + " |")
    cells = [cell(mean_shape["native", "mean", scale], sd=scale != "average") for scale in SCALES]
    lines.append("| mean shape (no image), own grid | " + " | ".join(cells) + " |")
    # No image is used, so no scale either: at 1 mm the mean shape is what it is, whatever the scan's resolution.
    cells = [cell(mean_shape["full", "mean", "1"]), *["same"] * 4]
    lines.append("| mean shape (no image), 1 mm | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", help="summary.csv of the network")
    parser.add_argument("mean_shape", help="summary.csv of configs/baselines/mean_shape.json")
    args = parser.parse_args()
    network, mean_shape = read(args.network), read(args.mean_shape)
    block = f"{BEGIN}\n{table(network, mean_shape)}\n{END}"
    for path in (ROOT / "README.md", BUNDLE / "docs" / "README.md"):
        text = path.read_text()
        before, rest = text.split(BEGIN)
        path.write_text(before + block + rest.split(END)[1])
    path = BUNDLE / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata["eval_metrics"] = {
        f"dice_{grid}_scale_{scale}_{name}": round(float(row["mean"]), 4)
        for (grid, name, scale), row in network.items()
        if scale != "average"
    }
    path.write_text(json.dumps(metadata, indent=4, ensure_ascii=False) + "\n")
    print(block)


if __name__ == "__main__":
    main()
