"""Runs the hippocampus bundle with a small untrained network on many files at once, in this process."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from rare_unet_networks.data.datalists import case_id
from rare_unet_networks.utils.errors import one_line

from ..bundles.conftest import SMALL, run

# Reasons for a review that an untrained network gives anywhere, and that say nothing of the header.
OF_THE_NETWORK = ("the prediction touches", "no voxel is", "the prediction extends over", "field of view")


@dataclass
class Outcome:
    """What a run made of one file: a reason why it failed, or a prediction and reasons to review it."""

    path: Path
    reasons: list[str]
    lines: list[str]
    prediction: Path | None = None
    review: tuple[str, ...] = ()

    @property
    def is_warned(self) -> bool:
        """Whether there is a reason to review the prediction that is not the network's."""
        return any(not reason.startswith(OF_THE_NETWORK) for reason in self.review)


class _Lines(logging.Handler):
    """Collects the lines of errors as a log shows them."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


def segment(folder: Path, output: Path, weights: str) -> dict[str, Outcome]:
    """Segments all scans of a folder; returns the outcomes by name of the file."""
    handler = _Lines()
    logging.getLogger().addHandler(handler)
    try:
        options = dict(input=str(folder), output_dir=str(output), checkpoint=weights, side="left", doubt_limit=None)
        evaluator = run("inference.json", **options, **SMALL).parser.get_parsed_content("evaluator")
    finally:
        logging.getLogger().removeHandler(handler)
    outcomes = {}
    for path in map(Path, sorted(os.listdir(folder))):
        whole = one_line(str(folder / path))
        reasons = [reason for name, reason in evaluator.failures if name == whole]
        lines = [line for line in handler.lines if line.startswith(f"{whole}: ")]
        outcome = Outcome(folder / path, reasons, lines)
        prediction = output / f"{case_id(path)}_seg.nii.gz"
        if not reasons and prediction.exists():
            record = json.loads(prediction.with_name(f"{case_id(path)}_seg.json").read_text())
            outcome.prediction, outcome.review = prediction, tuple(record["review"])
        outcomes[str(path)] = outcome
    return outcomes
