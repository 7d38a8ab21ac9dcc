"""Table "tumours" of docs/trust.md: the agreement of two predictions beside the Dice with the label.

    python docs/experiment/scripts/tumor_agreement.py --dataset_dir Task01_BrainTumour --output_dir runs/agreement

The validation cases at the scales of ``run evaluating``: Dice on the grid of 1 mm, mean of the three classes.
"""

from __future__ import annotations

import argparse
import csv
import re
from pathlib import Path
from statistics import fmean

from experiment_tasks import ROOT
from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow
from scipy.stats import spearmanr

from rare_unet_networks.handlers.case_records import cases_of

BUNDLE = ROOT / "bundles/brain_tumor_mri_segmentation"
DOCUMENT = ROOT / "docs/trust.md"
CLASSES = ("edema", "non_enhancing", "enhancing")
TITLES = {"1": "1 mm", "0.5": "2 mm", "0.25": "4 mm"}  # at 8 mm there is no coarser level

Key = tuple[str, str]  # case and scale


def agreements(dataset_dir: str, output_dir: Path) -> dict[Key, float]:
    """Evaluates the validation cases with a second prediction; returns the mean agreement of each."""
    files = [str(BUNDLE / "configs" / name) for name in ("inference.json", "evaluate.json")]
    options = {"bundle_root": str(BUNDLE), "dataset_dir": dataset_dir, "output_dir": str(output_dir), "trust": True}
    workflow = ConfigWorkflow(files, workflow_type="infer", logging_file=False, **options)
    workflow.initialize()
    found: dict[Key, float] = {}

    def note(engine: Engine) -> None:
        for case, output in zip(cases_of(engine.state.batch), engine.state.output):
            meta = output["pred"].meta
            if "trust_entries" in meta:
                found[case, f"{0.5 ** meta['route'].level:g}"] = meta["trust_entries"]["agreement"]["mean"]

    workflow.parser.get_parsed_content("evaluator").add_event_handler(Events.ITERATION_COMPLETED, note)
    workflow.run()
    return found


def dices(output_dir: Path) -> dict[Key, float]:
    """Mean Dice of the classes of each case and scale."""
    values: dict[Key, list[float]] = {}
    with open(output_dir / "metrics/per_case.csv", newline="") as file:
        for row in csv.DictReader(file):
            if row["grid"] == "full" and row["class"] in CLASSES and row["dice"]:
                values.setdefault((row["case"], f"{float(row['scale']):g}"), []).append(float(row["dice"]))
    return {key: fmean(scores) for key, scores in values.items()}


def table(agreement: dict[Key, float], dice: dict[Key, float]) -> str:
    """Each case at each scale, and the rank correlation over all of them."""
    lines = ["| case | " + " | ".join(f"{title}: Dice / agreement" for title in TITLES.values()) + " |"]
    lines.append("|---|" + "---|" * len(TITLES))
    for case in sorted({case for case, _ in dice}):
        cells = [f"{dice[case, scale]:.2f} / {agreement[case, scale]:.2f}" for scale in TITLES]
        lines.append(f"| {case} | {' | '.join(cells)} |")
    keys = sorted(agreement)
    correlation = spearmanr([dice[key] for key in keys], [agreement[key] for key in keys]).statistic
    return "\n".join(lines) + f"\n\nRank correlation (Spearman) over these {len(keys)} predictions: {correlation:.2f}."


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--output_dir", required=True, type=Path)
    args = parser.parse_args()
    found = table(agreements(args.dataset_dir, args.output_dir), dices(args.output_dir))
    text = DOCUMENT.read_text()
    pattern = r"(<!-- table: tumours -->\n).*?(<!-- /table -->)"
    DOCUMENT.write_text(re.sub(pattern, lambda m: f"{m[1]}{found}\n{m[2]}", text, flags=re.DOTALL))
    print(found)


if __name__ == "__main__":
    main()
