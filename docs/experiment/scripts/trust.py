"""Tables of docs/trust.md and the hippocampus bundle's models/trust.json.

    # predicts validation volumes, clean and corrupted, into docs/experiment/hippocampus/trust.csv; can be continued
    python docs/experiment/scripts/trust.py --dataset_dir Task04_Hippocampus --checkpoint model.pt
    # the tables and the model
    python docs/experiment/scripts/trust.py --checkpoint model.pt

All figures are out of fold by person: three folds of splits_calibration.json, each estimated by a fit to the others.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from experiment_tasks import ROOT
from monai.bundle import ConfigParser

from rare_unet_networks.bundle.trust_fit import expected_mean, fit_trust, true_mean
from rare_unet_networks.bundle.trust_scans import SPACINGS, load_labelled, predicted_scan, subject_of, trust_tasks
from rare_unet_networks.data import labelled_datalist
from rare_unet_networks.data.acquisitions import read_acquisitions
from rare_unet_networks.inferers import ResolutionRoutingInferer, TrustInferer
from rare_unet_networks.networks import load_weights
from rare_unet_networks.utils import sha256
from rare_unet_networks.utils.trust_model import TrustModel

BUNDLE = ROOT / "bundles/hippocampus_mri_segmentation"
TABLE = ROOT / "docs/experiment/hippocampus/trust.csv"
FOLDS = ROOT / "docs/experiment/hippocampus/splits_calibration.json"
DOCUMENT = ROOT / "docs/trust.md"
CLASSES = ["anterior", "posterior"]
LAST = 3
LIMIT = 0.7
SCALARS = ("level", "spacing", "anisotropy", "border")
BY_CLASS = ("agreement", "confidence", "volume", "label_volume", "stability", "dice", "true")
COLUMNS = ("case", "kind", "acquired", "level", "spacing", "anisotropy", "agreement_1", "agreement_2", "confidence_1")
COLUMNS += ("confidence_2", "volume_1", "volume_2", "label_volume_1", "label_volume_2", "doubt", "doubt_2", "border")
COLUMNS += ("stability_1", "stability_2", "dice_1", "dice_2", "true_1", "true_2")

Row = Mapping[str, Any]


def flat(row: Row) -> dict[str, Any]:
    """Cells of a row of the table."""
    cells = {name: row[name] for name in SCALARS}
    cells["doubt"], cells["doubt_2"] = row["doubt"]
    for name in BY_CLASS:
        if name in row:
            cells[f"{name}_1"], cells[f"{name}_2"] = row[name]
    return {key: f"{value:.4g}" for key, value in cells.items()}


def unflat(cells: Mapping[str, str]) -> dict[str, Any]:
    """A row from its cells."""
    row: dict[str, Any] = {name: float(cells[name]) for name in SCALARS}
    row["level"] = int(row["level"])
    row["doubt"] = [float(cells["doubt"]), float(cells["doubt_2"])]
    for name in BY_CLASS:
        if cells[f"{name}_1"]:
            row[name] = [float(cells[f"{name}_1"]), float(cells[f"{name}_2"])]
    return {**row, **{key: cells[key] for key in ("case", "kind", "acquired")}, "subject": subject_of(cells["case"])}


def measure(dataset_dir: str, checkpoint: str, full: int, limit: int | None) -> None:
    """Adds the scans that the table lacks."""
    config = ConfigParser()
    config.read_config(BUNDLE / "configs/inference.json")
    levels, network, scaling = map(config.get_parsed_content, ("levels", "network_def", "scaling"))
    load_weights(checkpoint, network, map_location="cpu")
    network.eval()
    logging.disable(logging.WARNING)
    plain = ResolutionRoutingInferer(levels, output="both")
    inferers = {mode: TrustInferer(plain, mode, scaling) for mode in ("true", "full")}
    items = labelled_datalist(dataset_dir, str(BUNDLE / "configs/splits.json"), "validation")
    files = {item["case"]: item for item in items}
    tasks = trust_tasks(list(files), read_acquisitions(list(SPACINGS)), 2)
    done = {(row["case"], row["acquired"], row["kind"]) for row in read()}
    is_new = not done
    volumes: dict[str, Any] = {}
    with open(TABLE, "w" if is_new else "a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        for count, (case, acquisition, kind) in enumerate(tasks[:limit]):
            key = (case, acquisition.spacing_name, kind)
            if key in done:
                continue
            if case not in volumes:
                volumes[case] = load_labelled({name: files[case][name] for name in ("image", "label")})
            inferer = inferers["full" if count % full == 0 else "true"]
            row = predicted_scan(volumes[case], (case, acquisition, kind), inferer, network, scaling, len(CLASSES) + 1)
            writer.writerow(dict(zip(("case", "acquired", "kind"), key)) | flat(row))
            file.flush()


def read() -> list[dict[str, Any]]:
    """Rows of the table."""
    if not TABLE.exists():
        return []
    with open(TABLE, newline="") as file:
        return [unflat(cells) for cells in csv.DictReader(file)]


def area_below(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """AUC: probability that a scan with a true label has the lower score, ties by half; NaN without both kinds."""
    low = [score for score, label in zip(scores, labels) if label]
    high = [score for score, label in zip(scores, labels) if not label]
    if not low or not high:
        return math.nan
    return sum((a < b) + 0.5 * (a == b) for a in low for b in high) / (len(low) * len(high))


def risk_coverage(scores: Sequence[float], risks: Sequence[float]) -> float:
    """AURC: mean over the number of accepted scans, those of the highest scores first, of their mean risk."""
    ordered = [risk for _, risk in sorted(zip(scores, risks), key=lambda pair: -pair[0])]
    total, means = 0.0, []
    for count, risk in enumerate(ordered, start=1):
        total += risk
        means.append(total / count)
    return fmean(means)


def out_of_fold(rows: Sequence[Row]) -> list[tuple[Row, TrustModel]]:
    """Each row with the model of the folds that it is not in."""
    folds = json.loads(FOLDS.read_text())
    pairs = []
    for number in range(3):
        inside = set(folds[f"fold_{number}"])
        model = fit_trust([row for row in rows if row["case"] not in inside], CLASSES, LAST)
        pairs += [(row, model) for row in rows if row["case"] in inside]
    return pairs


Pairs = Sequence[tuple[Row, TrustModel]]


def summary(pairs: Pairs) -> list[str]:
    """Cells of a line: scans, correlation, error, AUC, flags, AURC of the model, of agreement and of confidence."""
    expected = [expected_mean(model, row) for row, model in pairs]
    true = [true_mean(row) for row, _ in pairs]
    error = fmean(abs(e - t) for e, t in zip(expected, true))
    bad = [value < LIMIT for value in true]
    clean = [e < LIMIT for e, (row, _) in zip(expected, pairs) if row["kind"] == "clean"]
    risks = [1 - value for value in true]
    agreement = [fmean(row["agreement"]) for row, _ in pairs]
    doubt = [-row["doubt"][0] for row, _ in pairs]
    auc = [area_below(scores, bad) for scores in (expected, agreement, doubt)]
    aurc = [risk_coverage(scores, risks) for scores in (expected, agreement, doubt)]
    flags = f"{100 * fmean(clean):.1f} % of {len(clean)}" if clean else "–"
    curves = [" / ".join("–" if math.isnan(v) else f"{v:.3f}" for v in values) for values in (auc, aurc)]
    return [str(len(pairs)), f"{fmean(true):.3f}", f"{error:.3f}", str(sum(bad)), *curves, flags]


HEADS = ["scans", "mean Dice", "mean abs. error", f"Dice < {LIMIT}", "AUC: model / agreement / doubt"]
HEADS += ["AURC: model / agreement / doubt", "clean scans flagged"]


def table(first: str, groups: Mapping[str, Pairs]) -> str:
    """A line of figures for each group."""
    lines = [f"| {' | '.join([first, *HEADS])} |", "|---" * (len(HEADS) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(summary(pairs))} |" for name, pairs in groups.items() if pairs]
    return "\n".join(lines)


def grouped(pairs: Pairs, key: Callable[[Row], Any]) -> dict[str, Pairs]:
    """Pairs by a property of the row."""
    groups: dict[Any, list] = {}
    for row, model in pairs:
        groups.setdefault(key(row), []).append((row, model))
    return {str(name): groups[name] for name in sorted(groups)}


def coverage(pairs: Pairs) -> str:
    """How often the interval has the true volume, and its median width, by level and over all."""
    lines = ["| level | anterior | posterior | total | median width of total | no interval |", "|---" * 6 + "|"]
    for name, members in {**grouped(pairs, lambda row: row["level"]), "all": pairs}.items():
        hits: dict[str, list[bool]] = {title: [] for title in (*CLASSES, "total")}
        widths, missing = [], 0
        for row, model in members:
            dice = model.expected_dice(row)
            volumes = [*zip(CLASSES, row["label_volume"], row["true"])]
            for title, volume, true in [*volumes, ("total", sum(row["label_volume"]), sum(row["true"]))]:
                interval = model.interval(title, volume, dice, row["level"])
                if interval is not None:
                    hits[title].append(interval[0] <= true <= interval[1])
                if title == "total":
                    missing += interval is None
                    widths += [] if interval is None else [(interval[1] - interval[0]) / volume]
        shares = [f"{100 * fmean(values):.1f} %" if values else "–" for values in hits.values()]
        width = f"{100 * sorted(widths)[len(widths) // 2]:.0f} %" if widths else "–"
        lines.append(f"| {name} | {' | '.join(shares)} | {width} | {missing} |")
    return "\n".join(lines)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", help="predict the scans that the table lacks")
    parser.add_argument("--checkpoint", default=str(BUNDLE / "models/model.pt"))
    parser.add_argument("--full", type=int, default=3, help="every N-th scan is shifted too, for --trust full")
    parser.add_argument("--limit", type=int, help="number of scans of the list")
    args = parser.parse_args()
    if args.dataset_dir:
        measure(args.dataset_dir, args.checkpoint, args.full, args.limit)
    rows = read()
    model = fit_trust(rows, CLASSES, LAST)
    model.weights_sha256 = sha256(args.checkpoint)
    model.save(BUNDLE / "models/trust.json")
    pairs = out_of_fold(rows)
    of_clean = [(row, m) for row, m in pairs if row["kind"] == "clean"]
    without = [({k: v for k, v in row.items() if k != "stability"}, m) for row, m in pairs if "stability" in row]
    shifted = [(row, m) for row, m in pairs if "stability" in row]
    tables = {
        "all": table("scans", {"all": pairs, "clean": of_clean, "corrupted": [p for p in pairs if p not in of_clean]}),
        "levels": table("level", grouped(pairs, lambda row: row["level"])),
        "spacings": table("spacing", grouped(of_clean, lambda row: row["acquired"])),
        "kinds": table("kind", grouped(pairs, lambda row: row["kind"])),
        "full": table("--trust", {"true": without, "full": shifted}),
        "intervals": coverage(pairs),
    }
    pattern = re.compile(rf"(<!-- table: ({'|'.join(tables)}) -->\n).*?(<!-- /table -->)", re.DOTALL)
    text = DOCUMENT.read_text()
    DOCUMENT.write_text(pattern.sub(lambda m: f"{m[1]}{tables[m[2]]}\n{m[3]}", text))
    print("\n\n".join(f"{name}\n{lines}" for name, lines in tables.items()))


if __name__ == "__main__":
    main()
