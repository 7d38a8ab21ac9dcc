"""Limits of the doubt, computed from validation scans: ``run calibrating``, after the calibration of the heads."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from pathlib import Path

from ignite.engine import Engine, Events
from monai.engines import Evaluator

from ..levels import ResolutionLevels
from ..utils.distributed import all_gather, rank
from ..utils.files import write_text

__all__ = ["find_doubt_limits"]

logger = logging.getLogger(__name__)


def find_doubt_limits(
    evaluator: Evaluator, levels: ResolutionLevels, output_file: str | Path | None = None, margin: float = 1.5
) -> list[float | None]:
    """Computes the limit of the doubt at each level: the largest doubt of an evaluation times a margin.

    The limits depend on the weights and on the inferer. The line for ``inference.json`` is logged.

    Args:
        evaluator: evaluator of correct scans at every level that gets a limit; its postprocessing includes a
            :py:class:`rare_unet_networks.transforms.ReviewPredictiond` for ``pred``.
        levels: the resolution levels of the task.
        output_file: file for ``{"doubt_limit": [...]}``, a config that can be given after ``inference.json``.
        margin: factor that allows for scans of other scanners than those of the evaluation.

    Returns:
        ``doubt_limit`` of ``ReviewPredictiond``; None for levels without a scan.

    Raises:
        ValueError: if no scan could be evaluated.
    """
    values: list[tuple[int, float]] = []  # (level, doubt) of each scan

    def collect(engine: Engine) -> None:
        for output in engine.state.output or []:
            meta = output["pred"].meta
            values.append((meta["route"].level, meta["doubt"]))

    with evaluator.add_event_handler(Events.ITERATION_COMPLETED, collect):
        evaluator.run()
    doubts_by_level: dict[int, list[float]] = defaultdict(list)
    for values_of_rank in all_gather(values):
        for level, value in values_of_rank:
            doubts_by_level[level].append(value)
    if not doubts_by_level:
        raise ValueError("expected at least one scan that can be evaluated, got none: there is no doubt_limit")
    limits: list[float | None] = []
    for level in range(levels.num_levels):
        doubts = doubts_by_level[level]
        limits.append(round(margin * max(doubts), 2) if doubts else None)
        largest = f"largest doubt {max(doubts):.3f}, limit {limits[-1]}" if doubts else "no limit"
        logger.info(f"level {level}: {len(doubts)} scan(s), {largest}")
    if output_file is not None and rank() == 0:
        write_text(Path(output_file), json.dumps({"doubt_limit": limits}) + "\n")
        logger.info(f"doubt limits: {output_file}")
    logger.info(f'the line for inference.json: "doubt_limit": {json.dumps(limits)},')
    return limits
