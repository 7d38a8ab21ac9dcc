"""What MONAI's bundle runner lets pass silently: misspelt overrides, missing paths, values of another type."""

from __future__ import annotations

import inspect
import logging
import os
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from pydoc import ErrorDuringImport, locate
from types import TracebackType
from typing import Any

from fire.parser import DefaultParseValue
from monai.bundle import ConfigComponent, ConfigParser
from monai.bundle.scripts import run
from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS

from ..utils.errors import is_user_error, one_line, root_cause
from .device import check_device
from .logs import drop_repeated_errors

__all__ = ["bundle_root", "check_command_line", "command_options", "config_files"]

logger = logging.getLogger(__name__)
# Overrides that name something that has to be there already.
EXISTING = ("bundle_root", "dataset_dir", "input", "checkpoint", "splits_file", "predictions")
# Further overrides that are paths, beside those that end so.
PATH_ENDS = ("_dir", "_file")
# Overrides that are true or false, where the config has an expression or nothing instead of either.
SWITCHES = ("amp", "network_def#use_checkpoint")
EXPRESSIONS = ("$", "@", "%")
OPTION = re.compile(r"--?[A-Za-z]")
# Either of them in a config's ``initialize`` joins the processes that torchrun started.
JOINING = ("init_distributed", "init_process_group")


def _end_with_reason(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    # What a user can mend gets a line; anything else is for a developer as well.
    if is_user_error(error):
        logger.debug("what led to it:", exc_info=(kind, error, trace))
    else:
        sys.__excepthook__(kind, error, trace)
    print(f"error: {root_cause(error)}", file=sys.stderr)


def command_options(argv: Sequence[str] | None = None) -> dict[str, str]:
    """Options of a ``python -m monai.bundle run`` command, as written; empty for other programs.

    As fire does, ``--key value``, ``--key=value`` and one dash are taken; ``--args_file`` stands behind the rest.
    """
    argv = sys.argv if argv is None else argv
    if not argv or Path(argv[0]).parts[-2:] != ("bundle", "__main__.py"):
        return {}
    options: dict[str, str] = {}
    for word, following in zip(argv, [*argv[1:], "True"]):
        if OPTION.match(word):
            key, equals, value = word.lstrip("-").partition("=")
            options[key.replace("-", "_")] = value if equals else "True" if OPTION.match(following) else following
    if "args_file" in options:
        stored = ConfigParser.load_config_file(options["args_file"])
        options = {**{key: str(value) for key, value in stored.items()}, **options}
    return options


def config_files(options: dict[str, str]) -> list[str]:
    """Config files of a command with these options."""
    text = options.get("config_file", "")
    return [f.strip(" '\"") for f in text.strip("[]").split(",")] if text else []


def _tracking_keys(options: dict[str, str]) -> list[str]:
    """What ``--tracking mlflow``, or a file of such settings, adds to the config: overrides may name it.

    Raises:
        SystemExit: when the package of a tracker that MONAI knows is missing.
    """
    tracking = options.get("tracking", "None")  # as MONAI Label writes it where nothing is tracked
    if tracking == "None":
        return []
    if tracking in DEFAULT_EXP_MGMT_SETTINGS and find_spec(tracking) is None:
        raise SystemExit(f"error: --tracking {tracking} needs the package {tracking}: pip install '.[{tracking}]'.")
    settings = DEFAULT_EXP_MGMT_SETTINGS.get(tracking) or ConfigParser.load_config_file(tracking)
    return list(settings.get("configs", ()))


def bundle_root(argv: Sequence[str] | None = None) -> str:
    """The bundle that the command's (first) ``--config_file`` lies in, so that a command works from any folder.

    Programs that load a config themselves (MONAI Label, ``ConfigWorkflow``) set ``bundle_root`` or work in it: ".".
    """
    files = config_files(command_options(argv))
    if not files:
        return "."
    folder = Path(files[0]).resolve().parent
    # A config may lie deeper in configs/.
    return str(next((p.parent for p in (folder, *folder.parents) if p.name == "configs"), folder))


def _new_arguments(parser: ConfigParser, parent: str, target: str | None = None) -> set[str] | None:
    """What an override may add to an entry of the config.

    Args:
        parser: the config.
        parent: id of the entry, such as ``inferer``.
        target: another ``_target_`` than the config's, where the command line gives one.

    Returns:
        names of the arguments that the component takes, or None where any name has to be let pass: the component takes
        ``**kwargs``, cannot be located (building it says so), or is a dictionary that is a value of something.
    """
    node = parser[parent]
    if not isinstance(node, dict):
        return set()  # of a list the entries can be replaced, not added to; a reference has no arguments
    if not ConfigComponent.is_instantiable(node):
        # Nothing would read a new entry of a mere section, unlike one of a value that goes somewhere as a whole.
        is_value = re.search(rf"[@%]{re.escape(parent)}(?![\w#:])", str(parser.get()).replace("::", "#")) is not None
        outer = parent
        while "#" in outer:
            outer = outer.rpartition("#")[0]
            is_value |= ConfigComponent.is_instantiable(parser[outer])
        return None if is_value else set()
    component = ConfigComponent({**node, **({"_target_": target} if target else {})}, locator=parser.locator)
    name = component.resolve_module_name()
    if not isinstance(name, str) or name.startswith(EXPRESSIONS):
        return None
    try:
        parameters = inspect.signature(locate(name)).parameters.values()
    except (ErrorDuringImport, TypeError, ValueError):  # not importable, not there, or without a signature
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return named | ConfigComponent.non_arg_keys


def _check_override(parser: ConfigParser, key: str, options: dict[str, str], known: Sequence[str]) -> None:
    """Stops on an override that has no place in the config.

    Args:
        parser: the config.
        key: an override that is no entry of it.
        options: all that the command line gives.
        known: names that might be meant, at the top level.

    Raises:
        SystemExit: with a message that names the override, and what was meant if that can be guessed.
    """
    key_written, key = key, key.replace("::", "#")
    parent, _, last = key.rpartition("#")
    candidates = list(known)
    if parent and parent in parser:
        names = _new_arguments(parser, parent, options.get(f"{parent}#_target_"))
        if names is None or last in names:
            return
        node = parser[parent]
        candidates = [f"{parent}#{name}" for name in sorted(names | set(node if isinstance(node, dict) else ()))]
    guess = get_close_matches(key, candidates, n=1)
    hint = f" Did you mean --{guess[0]}?" if guess else ""
    raise SystemExit(
        f"error: --{key_written} is neither an option of the bundle runner nor an entry of the config.{hint}"
    )


def _check_value(key: str, written: str, default: Any) -> None:
    """Stops on a value that Python Fire reads as another type than the override has.

    Args:
        key: the override.
        written: its value on the command line.
        default: its value in the config.

    Raises:
        SystemExit: when a path would be read as a number or a list, or a switch is neither true nor false.
    """
    if written.startswith(EXPRESSIONS):
        return
    value = DefaultParseValue(written)
    if (key in EXISTING or key.endswith(PATH_ENDS)) and not isinstance(value, str):
        raise SystemExit(f"error: --{key} {written} would be read as {value!r}: write ./{written}")
    if isinstance(default, bool) or key in SWITCHES:
        _check_switch(key, written)


def _check_switch(key: str, written: str) -> None:
    """Stops on a switch that is neither true nor false.

    Our own options, which are entries at the top of a config, take any letter case. An argument of a component goes to
    it as Fire reads it, and to Python the text "false" is true.
    """
    lower = written.lower()
    if lower not in ("true", "false", "1", "0"):
        raise SystemExit(f"error: --{key} must be true or false, got {written!r}.")
    if ("#" in key or "::" in key) and written not in ("True", "False", "1", "0"):
        raise SystemExit(f"error: --{key} must be True or False, got {written!r}: write --{key} {lower.capitalize()}")


def _check_processes(config: dict[str, Any]) -> None:
    """Without being joined, several processes would each do all of the work, and write the same files."""
    joining = any(name in str(config.get("initialize")) for name in JOINING)
    started = int(os.environ.get("WORLD_SIZE", 1)) if "RANK" in os.environ else 0
    if started > 1 and not joining:
        raise SystemExit(
            f"error: this is one of {started} processes, of which each would do everything: --config_file must name "
            "multi_gpu_inference.json or multi_gpu_train.json as well (docs/many_machines.md)."
        )
    if joining and not started:
        raise SystemExit(
            "error: a config_file for several processes must be run with torchrun (docs/many_machines.md)."
        )


def check_command_line(argv: Sequence[str] | None = None) -> None:
    """Stops on unknown overrides, paths that do not exist, values of another type, and processes that are not joined.

    An override may add an argument to a component: ``--inferer#cval 0.5``.

    Later errors end with their innermost reason as one line; the traceback of those that a user can mend is logged at
    level DEBUG only.

    Args:
        argv: the command, ``sys.argv`` by default.

    Raises:
        SystemExit: with a message that names the override or the path, and what was meant if that can be guessed; a
            user's slip deserves a line, not a traceback.
    """
    options = command_options(argv)
    if not options:
        return
    sys.excepthook = _end_with_reason
    drop_repeated_errors()
    config = ConfigParser.load_config_files(config_files(options))
    _check_processes(config)
    parser = ConfigParser(config)
    runner = [p.name for p in inspect.signature(run).parameters.values() if p.kind is not p.VAR_KEYWORD]
    config |= {key: None for key in _tracking_keys(options)}
    for key, value in options.items():
        if key not in runner and key not in parser and key not in config:
            _check_override(parser, key, options, [*config, *runner])
        if key not in runner:
            _check_value(key, value, parser.get(key))
        if key in EXISTING and not Path(value).exists():
            raise SystemExit(f"error: --{key} must exist, {one_line(value)} does not.")
    if "device" in options:
        check_device(options["device"])
