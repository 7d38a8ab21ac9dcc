"""Checks of overrides: misspelt names, missing paths, and values of a wrong type."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from pydoc import ErrorDuringImport, locate
from typing import Any

from fire.parser import DefaultParseValue
from monai.bundle import ConfigComponent, ConfigParser, ConfigWorkflow

from ..utils.errors import one_line
from ..utils.switches import is_on
from .device import EXPRESSIONS

__all__ = ["check_existence", "check_name", "check_overrides", "check_value", "component_arguments"]

# Overrides whose path must exist.
EXISTING = ("bundle_root", "dataset_dir", "input", "checkpoint", "splits_file", "predictions")
# Further overrides are paths if their names end with one of these.
PATH_ENDS = ("_dir", "_file")
# Overrides that are true or false although their default in the config is not: it is an expression, or missing.
SWITCHES = ("amp", "network_def#use_checkpoint")
FURTHER = {"trust": ("full",), "report": ("interactive",)}  # values of a switch beside true and false


def component_arguments(parser: ConfigParser, parent: str, target: str | None = None) -> set[str] | None:
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


def check_name(parser: ConfigParser, key: str, options: dict[str, str], known: Sequence[str]) -> None:
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
        names = component_arguments(parser, parent, options.get(f"{parent}#_target_"))
        if names is None or last in names:
            return
        node = parser[parent]
        candidates = [f"{parent}#{name}" for name in sorted(names | set(node if isinstance(node, dict) else ()))]
    guess = get_close_matches(key, candidates, n=1)
    hint = f" Did you mean --{guess[0]}?" if guess else ""
    raise SystemExit(
        f"error: --{key_written} is neither an option of the bundle runner nor an entry of the config.{hint}"
    )


def check_value(key: str, written: str, default: Any) -> None:
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
    if isinstance(default, bool) or key in SWITCHES:
        _check_switch(key, written)


def _check_switch(key: str, written: str) -> None:
    """Checks that a switch is true or false.

    Options at the top level of a config are read by this package and may have any letter case. An argument of a
    component is passed on as Fire reads it: "false" would be a text, which Python counts as true.

    Raises:
        SystemExit: if it is neither, or an argument of a component in small letters.
    """
    if written in FURTHER.get(key, ()):
        return
    try:
        value = is_on(written)
    except ValueError:
        values = ", ".join(("true", *FURTHER[key], "false")) if key in FURTHER else "true or false"
        raise SystemExit(f"error: --{key} must be {values}, got {written!r}.") from None
    if ("#" in key or "::" in key) and written not in ("True", "False", "1", "0"):
        raise SystemExit(f"error: --{key} must be True or False, got {written!r}: write --{key} {value}")


def check_existence(key: str, value: str) -> None:
    """Checks that an override that is a path is not empty, no file where it is a folder, and there, if it must be.

    Raises:
        SystemExit: if it is empty, a file instead of a folder, or does not exist.
    """
    if (key in EXISTING or key.endswith(PATH_ENDS)) and not value.strip():
        # As a path it is the current folder; a shell makes it of a variable without a value.
        raise SystemExit(f"error: --{key} must be a path, got none.")
    if key in EXISTING and not Path(value).exists():
        raise SystemExit(f"error: --{key} must exist, {one_line(value)} does not.")
    if key.endswith("_dir") and Path(value).is_file():
        raise SystemExit(f"error: --{key} must be a folder, {one_line(value)} is a file.")


def check_overrides(files: Sequence[str], overrides: Mapping[str, Any]) -> None:
    """Checks the arguments of a workflow in Python: misspelt names, missing paths, and switches.

    Args:
        files: config files of the workflow, in order.
        overrides: its other arguments: those of ``ConfigWorkflow``, and entries of the config.

    Raises:
        ValueError: if a check fails.
    """
    config = ConfigParser.load_config_files(list(files))
    parser = ConfigParser(config)
    known = [*inspect.signature(ConfigWorkflow).parameters]
    texts = {key: str(value) for key, value in overrides.items()}
    try:
        for key, text in texts.items():
            if key in known:
                continue
            if key not in parser and key not in config:
                check_name(parser, key, texts, [*config, *known])
            if isinstance(parser.get(key), bool) and not text.startswith(EXPRESSIONS):
                _check_switch(key, text)
            if not text.startswith(EXPRESSIONS):
                check_existence(key, text)
    except SystemExit as error:  # as of a command
        raise ValueError(str(error).removeprefix("error: ").replace("--", "")) from None
