"""Checks of the command line that MONAI's bundle runner lacks: misspelt overrides, missing paths, wrong types."""

from __future__ import annotations

import inspect
import logging
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.scripts import run
from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS

from ..cli.words import check_evaluation, runner_words, taken_apart
from ..utils.errors import is_user_error, root_cause
from .device import check_device
from .logs import drop_repeated_errors
from .overlays import check_overlays
from .overrides import check_existence, check_name, check_overrides, check_value
from .workflow import config_folder, created_with

__all__ = ["bundle_root", "check_command_line", "command_options", "config_files"]

logger = logging.getLogger(__name__)
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
    options = dict(taken_apart(runner_words(argv))[0])
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

    In a program that makes a workflow (``create_workflow``, ``ConfigWorkflow``), it is that of the workflow's config.
    It is "." for programs that load a config themselves (MONAI Label): they set ``bundle_root`` or run in the bundle's
    folder.
    """
    files = config_files(command_options(argv))
    folder = Path(files[0]).parent if files else config_folder()
    if folder is None:
        return "."
    folder = folder.resolve()
    # A config may lie in a subfolder of configs/.
    return str(next((p.parent for p in (folder, *folder.parents) if p.name == "configs"), folder))


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

    An override may add an argument to a component: ``--inferer#cval 0.5``. In a program that calls ``create_workflow``,
    the arguments of the call are checked, see
    :py:func:`rare_unet_networks.bundle.overrides.check_overrides`.

    It also installs a hook for later errors: they end with their cause in one line. The traceback of errors that a user
    can correct is logged at level DEBUG only.

    Args:
        argv: the command, ``sys.argv`` by default.

    Raises:
        SystemExit: if a check fails, with a message in one line that names the override or the path.
    """
    options = command_options(argv)
    if not options:
        arguments = created_with()
        if arguments is not None:
            try:
                check_overlays(arguments[0])
                check_overrides(*arguments)
            except ValueError as error:
                # MONAI would put an exception of another kind into one that only names the expression.
                raise SystemExit(f"error: {error}") from None
        return
    sys.excepthook = _end_with_reason
    drop_repeated_errors()
    config = ConfigParser.load_config_files(config_files(options))
    check_overlays(config_files(options))
    _check_processes(config)
    parser = ConfigParser(config)
    runner = runner_options()
    config |= {key: None for key in _tracking_keys(options)}
    for key, value in options.items():
        if key not in runner and key not in parser and key not in config:
            check_name(parser, key, options, [*config, *runner])
        if key not in runner:
            check_value(key, value, parser.get(key))
        check_evaluation(key, value)  # again, with the values of --args_file
        check_existence(key, value)
    if "device" in options:
        check_device(options["device"])
