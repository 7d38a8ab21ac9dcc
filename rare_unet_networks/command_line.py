"""What MONAI's bundle runner lets pass silently: misspelt overrides, missing paths, values of another type."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from types import TracebackType
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.scripts import run

__all__ = ["as_bool", "bundle_root", "check_command_line", "innermost_reason"]

# Overrides that name something that has to be there already.
EXISTING = ("bundle_root", "dataset_dir", "input")


def as_bool(value: Any) -> bool:
    """``--amp false`` arrives as the string "false", which is true to Python.

    Raises:
        ValueError: when the value is neither true nor false.
    """
    text = str(value).lower()
    if text not in ("true", "false", "1", "0"):
        raise ValueError(f"expected true or false, got {value!r}.")
    return text in ("true", "1")


def innermost_reason(error: BaseException) -> str:
    """What went wrong in one line: MONAI wraps an error of a transform or an expression in others."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"


def _end_with_reason(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.__excepthook__(kind, error, trace)
    print(f"error: {innermost_reason(error)}", file=sys.stderr)


def _options(argv: Sequence[str]) -> dict[str, str]:
    """``--key value`` and ``--key=value`` of a ``python -m monai.bundle run`` command; empty for other programs."""
    if not argv or Path(argv[0]).parts[-2:] != ("bundle", "__main__.py"):
        return {}
    options: dict[str, str] = {}
    for i, word in enumerate(argv):
        if word.startswith("--"):
            key, equals, value = word[2:].partition("=")
            following = argv[i + 1] if i + 1 < len(argv) and not argv[i + 1].startswith("--") else "True"
            options[key.replace("-", "_")] = value if equals else following
    return options


def _config_files(options: dict[str, str]) -> list[str]:
    text = options.get("config_file", "")
    return [f.strip(" '\"") for f in text.strip("[]").split(",")] if text else []


def bundle_root(argv: Sequence[str] | None = None) -> str:
    """The bundle that the command's (first) ``--config_file`` lies in, so that a command works from any folder.

    Programs that load a config themselves (MONAI Label, ``ConfigWorkflow``) set ``bundle_root`` or work in it: ".".
    """
    files = _config_files(_options(sys.argv if argv is None else argv))
    if not files:
        return "."
    folder = Path(files[0]).resolve().parent
    # Deltas such as configs/baselines/*.json lie one folder deeper.
    return str(next((p.parent for p in (folder, *folder.parents) if p.name == "configs"), folder))


def check_command_line(argv: Sequence[str] | None = None) -> None:
    """Stops on an override that the configs do not know, and on a path that does not exist.

    Later errors get their innermost reason as the last line, below MONAI's traceback.

    Args:
        argv: the command, ``sys.argv`` by default.

    Raises:
        SystemExit: with a message that names the override or the path, and what was meant if that can be guessed; a
            user's slip deserves a line, not a traceback.
    """
    options = _options(sys.argv if argv is None else argv)
    if not options:
        return
    sys.excepthook = _end_with_reason
    config = ConfigParser.load_config_files(_config_files(options))
    parser = ConfigParser(config)
    runner = [p.name for p in inspect.signature(run).parameters.values() if p.kind is not p.VAR_KEYWORD]
    for key, value in options.items():
        if key not in runner and key not in parser:
            guess = get_close_matches(key, [*config, *runner], n=1)
            hint = f" Did you mean --{guess[0]}?" if guess else ""
            raise SystemExit(
                f"error: --{key} is neither an option of the bundle runner nor an entry of the config.{hint}"
            )
        if key in EXISTING and not Path(value).exists():
            raise SystemExit(f"error: --{key} must exist, {value} does not.")
