"""Goes on with an inference that was cut short: the same command, given again, leaves out the scans it has answered."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from ..bundle.command_line import command_options, config_files
from ..data.datalists import FAILURE, answer_name
from ..transforms.grids import answer_key
from ..utils.distributed import all_gather, broadcast_from_rank0, rank
from ..utils.switches import is_on
from ..utils.tables import rows_there
from .reports import VolumeSaver

__all__ = ["CommandRecord", "unfinished"]

logger = logging.getLogger(__name__)
RECORD = ".command.json"
NAMED = 20  # skipped scans that the log names


def _command() -> dict[str, Any] | None:
    """All that a command line says about its answers; None where there is no command."""
    options = command_options()
    options.pop("overwrite", None)
    return {"folder": os.getcwd(), "options": options} if options else None


def _recorded(record: Path) -> dict[str, Any] | None:
    """The command written down; None where none is, or one that was cut short."""
    try:
        return json.loads(record.read_text())
    except (FileNotFoundError, ValueError):
        return None


def _changed(paths: Iterable[str | Path]) -> float:
    """When the youngest of the files came, in seconds: written, moved there, copied with its old date, or linked."""
    stats = [stat for path in paths for stat in (os.stat(path), os.lstat(path))]
    return max((max(s.st_mtime, s.st_ctime) for s in stats), default=0.0)


def _answered(items: Sequence[dict], folder: Path, grid: str, checkpoint: str) -> set[str]:
    """Cases whose answers are there, and are younger than everything that they were made of."""
    record = folder / RECORD
    if _recorded(record) != _command():
        return set()
    code = Path(__file__).parents[1].rglob("*.py")
    since = _changed([record, checkpoint, *config_files(command_options()), *code])
    # Rows come after an answer is written to its end.
    reported = {row["case"] for row in rows_there(folder / "volumes.csv", VolumeSaver.columns)}
    answered = set()
    for item in (item for item in items if FAILURE not in item and item["case"] in reported):
        image = item["image"]
        scans = list(image.values()) if isinstance(image, Mapping) else [image]
        answer = folder / answer_name(item["case"], grid)
        there = answer.exists() and all(map(os.path.exists, scans))
        if there and answer.stat().st_mtime > max(since, _changed(scans)):
            answered.add(item["case"])
    return answered


def unfinished(
    items: Sequence[dict], output_dir: str, grid: str, checkpoint: str, overwrite: bool | str = False
) -> list[dict]:
    """Leaves out the scans that an earlier run of the same command has answered.

    A scan is answered where its answer and its rows in ``volumes.csv`` are there, and the answer is younger than the
    scan's files, the weights, the configs, this package's code and the first run of this very command (with its
    options and working folder) in ``output_dir``. Anything else is done again, and so is all that a program asks for
    that drives the config itself: what it set cannot be known here. Of several processes the first decides for all.

    Args:
        items: scans as of :py:func:`rare_unet_networks.data.input_datalist`.
        output_dir: folder of the answers.
        grid: grid of the predictions, ``"scan"`` or ``"fine"``.
        checkpoint: file of the weights.
        overwrite: leave nothing out.

    Returns:
        the items that are left to do.

    Raises:
        ValueError: when ``grid`` is another grid, or ``volumes.csv`` not one of ours.
    """
    answer_key(grid)
    answered: set[str] = set()
    if not is_on(overwrite) and command_options() and rank() == 0:
        answered = _answered(items, Path(output_dir), grid, checkpoint)
    answered = broadcast_from_rank0(answered)
    if answered:
        names = sorted(answered)
        logger.info(
            f"{len(names)} of {len(items)} were answered by this command before and are left out "
            f"(--overwrite true does them again): {', '.join(names[:NAMED])}{', …' if len(names) > NAMED else ''}; "
            f"their volumes are in {Path(output_dir) / 'volumes.csv'}"
        )
    return [item for item in items if FAILURE in item or item["case"] not in answered]


class CommandRecord:
    """Writes down which command the answers in a folder are from, before the first of them, for :py:func:`unfinished`.

    Args:
        output_dir: folder of the answers.
    """

    def __init__(self, output_dir: str) -> None:
        self.path = Path(output_dir) / RECORD

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.started)

    def started(self) -> None:
        if rank() == 0:
            self._write()
        all_gather(None)  # no answer of another process is older

    def _write(self) -> None:
        command = _command()
        if command is None:
            self.path.unlink(missing_ok=True)
        elif _recorded(self.path) != command:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(command))
