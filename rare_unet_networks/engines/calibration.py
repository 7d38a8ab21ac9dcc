"""Limits that belong to weights, found anew from validation volumes."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from ignite.engine import Engine, Events
from monai.engines import Evaluator

from ..levels import ResolutionLevels
from ..utils.distributed import all_gather, rank

__all__ = ["find_doubt_limits"]

logger = logging.getLogger(__name__)


def find_doubt_limits(
    evaluator: Evaluator, levels: ResolutionLevels, output_file: str | Path | None = None, margin: float = 1.5
) -> list[float | None]:
    """Runs an evaluation, and takes the largest doubt of each level times a margin as that level's limit.

    Args:
        evaluator: of right scans, at every level that is to get a limit; its postprocessing holds a
            :py:class:`rare_unet_networks.transforms.ReviewPredictiond` for ``pred``.
        levels: the resolution levels of the task.
        output_file: where ``{"doubt_limit": [...]}`` goes, a config to be given after the bundle's own.
        margin: room for scans of other scanners than those of the evaluation.

    Returns:
        ``doubt_limit`` of ``ReviewPredictiond``, None for levels of which there was no scan.

    Raises:
        ValueError: when no scan could be evaluated.
    """
    values: list[tuple[int, float]] = []

    def collect(engine: Engine) -> None:
        for output in engine.state.output or []:
            meta = output["pred"].meta
            values.append((meta["route"].level, meta["doubt"]))

    with evaluator.add_event_handler(Events.ITERATION_COMPLETED, collect):
        evaluator.run()
    everything = [value for part in all_gather(values) for value in part]
    if not everything:
        raise ValueError("no scan could be evaluated: doubt_limit cannot be found.")
    limits: list[float | None] = []
    for level in range(levels.num_levels):
        of_level = [value for d, value in everything if d == level]
        limits.append(round(margin * max(of_level), 2) if of_level else None)
        largest = f"largest doubt {max(of_level):.3f}, limit {limits[-1]}" if of_level else "no limit"
        logger.info(f"level {level}: {len(of_level)} scan(s), {largest}")
    if output_file is not None and rank() == 0:
        Path(output_file).parent.mkdir(parents=True, exist_ok=True)
        Path(output_file).write_text(json.dumps({"doubt_limit": limits}) + "\n", encoding="utf-8")
        logger.info(f"doubt_limit is in {output_file}")
    return limits
