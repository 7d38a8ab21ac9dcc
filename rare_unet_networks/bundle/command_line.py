"""Checks of the command line that MONAI's bundle runner lacks: misspelt overrides, missing paths, wrong types."""

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
from ..utils.switches import is_on
from .device import EXPRESSIONS, check_device
from .logs import drop_repeated_errors

__all__ = ["bundle_root", "check_command_line", "command_options", "config_files"]

logger = logging.getLogger(__name__)
# Overrides whose path must exist.
EXISTING = ("bundle_root", "dataset_dir", "input", "checkpoint", "splits_file", "predictions")
# Further overrides are paths if their names end with one of these.
PATH_ENDS = ("_dir", "_file")
# Overrides that are true or false although their default in the config is not: it is an expression, or missing.
SWITCHES = ("amp", "network_def#use_checkpoint")
FURTHER = {"trust": ("full",)}  # values of a switch beside true and false
OPTION = re.compile(r"--?[A-Za-z]")
# A config joins the processes that torchrun started if its ``initialize`` contains one of these.
JOINING = ("init_distributed", "init_process_group")


def _end_with_reason(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    # An error that a user can correct gets one line; for any other a developer needs the traceback.
    if is_user_error(error):
        logger.debug("traceback of the error:", exc_info=(kind, error, trace))
    else:
        sys.__excepthook__(kind, error, trace)
    print(f"error: {root_cause(error)}", file=sys.stderr)


def command_options(argv: Sequence[str] | None = None) -> dict[str, str]:
    """Reads the options of a ``python -m monai.bundle run`` command, as text; empty for other programs.

    Like Fire, it accepts ``--key value``, ``--key=value`` and a single dash. Options on the command line take
    precedence over those of ``--args_file``.
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


def runner_options() -> list[str]:
    """Names of the bundle runner's options; any other is an override."""
    return [p.name for p in inspect.signature(run).parameters.values() if p.kind is not p.VAR_KEYWORD]


def config_files(options: dict[str, str]) -> list[str]:
    """Config files of a command with these options."""
    text = options.get("config_file", "")
    return [f.strip(" '\"") for f in text.strip("[]").split(",")] if text else []


def _tracking_keys(options: dict[str, str]) -> list[str]:
    """Entries that ``--tracking mlflow``, or a file of such settings, adds to the config; overrides may name them.

    Raises:
        SystemExit: if the package of a tracker that MONAI knows is missing.
    """
    tracking = options.get("tracking", "None")  # MONAI Label passes "None" if nothing is tracked
    if tracking == "None":
        return []
    if tracking in DEFAULT_EXP_MGMT_SETTINGS and find_spec(tracking) is None:
        raise SystemExit(f"error: --tracking {tracking} needs the package {tracking}: pip install '.[{tracking}]'.")
    settings = DEFAULT_EXP_MGMT_SETTINGS.get(tracking) or ConfigParser.load_config_file(tracking)
    return list(settings.get("configs", ()))


def bundle_root(argv: Sequence[str] | None = None) -> str:
    """Folder of the bundle of the command's (first) ``--config_file``, so that a command works from any folder.

    It is "." for programs that load a config themselves (MONAI Label, ``ConfigWorkflow``): they set ``bundle_root`` or
    run in the bundle's folder.
    """
    files = config_files(command_options(argv))
    if not files:
        return "."
    folder = Path(files[0]).resolve().parent
    # A config may lie in a subfolder of configs/.
    return str(next((p.parent for p in (folder, *folder.parents) if p.name == "configs"), folder))


def _new_arguments(parser: ConfigParser, parent: str, target: str | None = None) -> set[str] | None:
    """Arguments that an override may add to an entry of the config.

    Args:
        parser: the config.
        parent: id of the entry, such as ``inferer``.
        target: ``_target_`` of the entry on the command line, if it replaces that of the config.

    Returns:
        names of the arguments of the component; None if every name must be accepted, because the component has
        ``**kwargs``, because it cannot be located (then building it raises an error), or because the entry is a
        dictionary that is used as a value.
    """
    node = parser[parent]
    if not isinstance(node, dict):
        return set()  # entries of a list can only be replaced, and a reference has no arguments
    if not ConfigComponent.is_instantiable(node):
        # A new entry has an effect only if the whole dictionary is passed on, by a reference or as an argument.
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
    except (ErrorDuringImport, TypeError, ValueError):  # cannot be imported or located, or has no signature
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return named | ConfigComponent.non_arg_keys


def _check_override(parser: ConfigParser, key: str, options: dict[str, str], known: Sequence[str]) -> None:
    """Checks an override that is not an entry of the config: it must be an argument of a component.

    Args:
        parser: the config.
        key: the override.
        options: all options of the command line.
        known: names at the top level, to suggest one of them.

    Raises:
        SystemExit: if it is not. The message names the override and, if there is a similar one, suggests a name.
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
    """Checks that Python Fire reads a value as the type of the override.

    Args:
        key: the override.
        written: its value on the command line.
        default: its value in the config.

    Raises:
        SystemExit: if a path would be read as a number, a list or another path, or a switch is neither true nor false.
    """
    if written.startswith(EXPRESSIONS):
        return
    value = DefaultParseValue(written)
    if key in EXISTING or key.endswith(PATH_ENDS):
        if "#" in written:
            # Fire reads it as the beginning of a comment, MONAI as a separator of config ids.
            raise SystemExit(f"error: --{key} {one_line(written)}: a path must have no '#', rename it or use a link.")
        if not isinstance(value, str):
            raise SystemExit(f"error: --{key} {written} would be read as {value!r}: write ./{written}")
    if (isinstance(default, bool) or key in SWITCHES) and written not in FURTHER.get(key, ()):
        _check_switch(key, written)


def _check_switch(key: str, written: str) -> None:
    """Checks that a switch is true or false.

    Options at the top level of a config are read by this package and may have any letter case. An argument of a
    component is passed on as Fire reads it: "false" would be a text, which Python counts as true.

    Raises:
        SystemExit: if it is neither, or an argument of a component in small letters.
    """
    try:
        value = is_on(written)
    except ValueError:
        raise SystemExit(f"error: --{key} must be true or false, got {written!r}.") from None
    if ("#" in key or "::" in key) and written not in ("True", "False", "1", "0"):
        raise SystemExit(f"error: --{key} must be True or False, got {written!r}: write --{key} {value}")


def _check_processes(config: dict[str, Any]) -> None:
    """Checks that a config for several processes is used exactly if there are several.

    Without it each process would do all of the work and write the same files.

    Raises:
        SystemExit: if torchrun's processes are not joined, or such a config is run without torchrun.
    """
    joining = any(name in str(config.get("initialize")) for name in JOINING)
    started = int(os.environ.get("WORLD_SIZE", 1)) if "RANK" in os.environ else 0
    if started > 1 and not joining:
        raise SystemExit(
            f"error: this is one of {started} processes, and each would do all of the work: --config_file must name "
            "multi_gpu_inference.json or multi_gpu_train.json as well (docs/many_machines.md)."
        )
    if joining and not started:
        raise SystemExit(
            "error: a config_file for several processes must be run with torchrun (docs/many_machines.md)."
        )


def check_command_line(argv: Sequence[str] | None = None) -> None:
    """Checks a command for unknown overrides, missing paths, values of a wrong type, and processes that are not joined.

    An override may add an argument to a component: ``--inferer#cval 0.5``.

    It also installs a hook for later errors: they end with their cause in one line. The traceback of errors that a user
    can correct is logged at level DEBUG only.

    Args:
        argv: the command, ``sys.argv`` by default.

    Raises:
        SystemExit: if a check fails, with a message in one line that names the override or the path.
    """
    options = command_options(argv)
    if not options:
        return
    sys.excepthook = _end_with_reason
    drop_repeated_errors()
    config = ConfigParser.load_config_files(config_files(options))
    _check_processes(config)
    parser = ConfigParser(config)
    runner = runner_options()
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
