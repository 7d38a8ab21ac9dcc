"""The options of a command, read from the configs of a bundle."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .descriptions import COMPONENTS, DEFAULTS, OPTIONS

__all__ = ["COMMANDS", "Command", "Option", "read_options"]

SUM_OF_PATHS = re.compile(r"\$@(\w+) \+ '/?([^']*)'")
NESTED = ("+", "#", "::")  # in the name of an entry that changes a part of another


@dataclass(frozen=True)
class Command:
    """What a command runs.

    Attributes:
        run_id: entry of the config that MONAI's runner runs.
        files: config files of the bundle, in order.
        source: option of the positional argument after the task.
        purpose: what the command does, for the help.
    """

    run_id: str
    files: tuple[str, ...]
    source: str
    purpose: str


COMMANDS = {
    "segment": Command("inferring", ("inference.json",), "input", "segment scans (this word can be left out)"),
    "evaluate": Command("evaluating", ("inference.json", "evaluate.json"), "dataset_dir", "score labelled scans"),
    "train": Command("training", ("train.json",), "dataset_dir", "train from the start"),
    "finetune": Command("training", ("train.json", "finetune.json"), "dataset_dir", "train from the bundle's weights"),
    "calibrate": Command(
        "calibrating", ("inference.json", "evaluate.json", "calibrate.json"), "dataset_dir", "calibrate trained weights"
    ),
    "export": Command("exporting", ("inference.json", "export.json"), "export_dir", "export to other runtimes"),
}


@dataclass(frozen=True)
class Option:
    """An entry of a config that a command line sets with ``--name``."""

    name: str
    text: str
    default: str
    example: str


def _read(path: Path) -> dict[str, Any]:
    """Reads a config; not with the package's own reader, which imports PyTorch."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must be a JSON file: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must be a JSON object, got a {type(content).__name__}.")
    return content


def _shown(value: Any) -> str:
    """A default as users write it."""
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    match = SUM_OF_PATHS.fullmatch(value)
    if match:
        return f"{match[1].upper().removesuffix('_ROOT')}/{match[2]}"
    return DEFAULTS.get(value, value)


def _is_plain(value: Any) -> bool:
    """Whether a value is a number, a text or a list of them, not something that the configs build."""
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return not isinstance(value, Mapping) and not str(value).startswith(("$", "%"))


def read_options(files: Sequence[Path]) -> list[Option]:
    """Reads the options of a command from its config files, of which later ones take precedence.

    Described options come first, in the order of their descriptions; other plain entries of a config follow.

    Raises:
        ValueError: if a file is not a JSON object.
    """
    config: dict[str, Any] = {}
    for path in files:
        config |= {key: value for key, value in _read(path).items() if not any(part in key for part in NESTED)}
    options = []
    for name, (text, example) in OPTIONS.items():
        if name in config:
            options.append(Option(name, text, _shown(config[name]), example))
    for name, value in config.items():
        if name not in OPTIONS and name not in COMPONENTS and _is_plain(value):
            options.append(Option(name, "", _shown(value), ""))
    return options
