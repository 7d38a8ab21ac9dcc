"""The command ``rare-unet``: it writes the command of MONAI's bundle runner that a user means, and runs it."""

from __future__ import annotations

import gc
import os
import runpy
import shlex
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from .. import __version__
from .help import command_help, overview
from .options import COMMANDS, Command
from .places import Bundle, find_bundle, find_bundles
from .words import OPTION, repetition, taken_apart

__all__ = ["main"]

SHORT = {"-o": "--output_dir", "-v": "--verbose", "-h": "--help"}
WITH_VALUE = ("--bundle", "--overlay")  # of this command; further options are passed on to MONAI's runner
DEBUG_LOG = "logging_debug.conf"


@dataclass
class Request:
    """A command line of ``rare-unet``, taken apart.

    Attributes:
        words: what belongs to no option: command, task and source.
        bundle: value of ``--bundle``.
        overlays: values of ``--overlay``.
        switches: ``--help``, ``--version`` and ``--verbose``, where given.
        passed_on: all other options and their values.
    """

    words: list[str] = field(default_factory=list)
    bundle: str | None = None
    overlays: list[str] = field(default_factory=list)
    switches: set[str] = field(default_factory=set)
    passed_on: list[str] = field(default_factory=list)


def read_command_line(argv: Sequence[str]) -> Request:
    """Takes the words of a command line apart, as the bundle runner does: a word after an option is its value.

    Raises:
        ValueError: if ``--bundle`` or ``--overlay`` has no value.
    """
    request = Request()
    words = list(argv)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        name = SHORT.get(name, name)
        if not OPTION.match(word):
            request.words.append(word)
        elif name in ("--help", "--version", "--verbose") and not equals:
            request.switches.add(name)
        elif name in WITH_VALUE:
            if not equals and (not words or OPTION.match(words[0])):
                raise ValueError(f"{name} needs a value, a path.")
            value = value if equals else words.pop(0)
            if name == "--bundle":
                request.bundle = value
            else:
                request.overlays.append(value)
        else:
            request.passed_on.append(name + equals + value)
            if not equals and words and not OPTION.match(words[0]):
                request.passed_on.append(words.pop(0))
    return request


def _existing(name: str, path: str) -> str:
    """A path that MONAI's runner cannot take for a number or an expression.

    Raises:
        ValueError: if it does not exist.
    """
    if not path.strip():
        raise ValueError(f"{name} must be a path, got none.")
    if not Path(path).exists():
        raise ValueError(f"{name} must exist, {path} does not.")
    return path if os.path.isabs(path) else os.path.join(os.curdir, path)


def runner_command(request: Request) -> tuple[list[str], Bundle]:
    """Words of the ``monai.bundle`` command of a request, and the bundle that it uses.

    Raises:
        ValueError: if a word is missing, unknown or one too many, an option has several values, or a path does not
            exist.
    """
    command, words = _command(request.words)
    if not words:
        raise ValueError("expected a task; rare-unet --help lists the tasks and commands.")
    task, *sources = words
    if len(sources) > 1:
        raise ValueError(
            f"{', '.join(sources[1:])}: one file or folder can be given; put several scans into a folder, or run the "
            "command once per file."
        )
    bundle = find_bundle(task, request.bundle)
    if command.source == "input" and not sources and not _has(request.passed_on, "--input", "--dataset_dir"):
        raise ValueError(f"expected a scan or a folder of scans after {task}; samples are in {bundle.root / 'sample'}.")
    files = [str(bundle.config(name)) for name in command.files]
    files += [_existing("--overlay", path) for path in request.overlays]
    result = ["run", command.run_id, "--config_file", files[0] if len(files) == 1 else str(files)]
    if sources:
        is_input = command.source != "export_dir"
        result += [f"--{command.source}", _existing(command.source, sources[0]) if is_input else sources[0]]
    if "--verbose" in request.switches and bundle.config(DEBUG_LOG).is_file():
        result += ["--logging_file", str(bundle.config(DEBUG_LOG))]
    result += request.passed_on
    if fault := repetition(taken_apart(result)[0]):
        raise ValueError(f"{fault}.")
    return result, bundle


def _has(words: Sequence[str], *names: str) -> bool:
    """Whether one of the options is among the words."""
    return any(word.partition("=")[0] in names for word in words)


def _command(words: Sequence[str]) -> tuple[Command, list[str]]:
    """The command of a command line, and the words after it; scans are segmented if no word names a command."""
    if words and words[0] in COMMANDS:
        return COMMANDS[words[0]], list(words[1:])
    return COMMANDS["segment"], list(words)


def _help(request: Request) -> str:
    name = request.words[0] if request.words and request.words[0] in COMMANDS else "segment"
    tasks = [word for word in request.words if word not in COMMANDS][:1]
    if tasks:
        bundle = find_bundle(tasks[0], request.bundle)
        return command_help(name, {bundle.task: bundle})
    bundles = find_bundles(request.bundle)
    return command_help(name, bundles) if request.words and bundles else overview(bundles)


def _version(request: Request) -> str:
    lines = [f"rare-unet {__version__}"]
    for task, bundle in find_bundles(request.bundle).items():
        lines.append(f"{task}: weights {bundle.version}, {bundle.root}")
    return "\n".join(lines)


def _text(request: Request) -> str:
    """Text that a request asks for instead of a run; empty if it asks for none."""
    if "--version" in request.switches:
        return _version(request)
    if "--help" in request.switches or not (request.words or request.passed_on):
        return _help(request)
    return ""


def _show(text: str) -> None:
    """Prints a text, also to a program that reads its beginning only (``| head``)."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line.

    Args:
        argv: its words after the program's name, ``sys.argv[1:]`` by default.

    Returns:
        exit status; that of MONAI's runner ends the program directly.
    """
    try:
        request = read_command_line(sys.argv[1:] if argv is None else argv)
        text = _text(request)
        words, bundle = ([], None) if text else runner_command(request)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if bundle is None:
        _show(text)
        return 0
    print(f"rare-unet {__version__}: {bundle.task}, weights {bundle.version}, {bundle.root}", file=sys.stderr)
    if "--verbose" in request.switches:
        print(f"runs: python -m monai.bundle {shlex.join(words)}", file=sys.stderr)
    if bundle.is_own:
        # MONAI warns that a config can run code. So can the package, with which this one came.
        warnings.filterwarnings("ignore", message="parsing config_file")
    gc.disable()  # MONAI makes 400,000 objects while it is imported; looking through them takes a second
    import_module("monai.bundle")
    gc.freeze()
    gc.enable()
    sys.argv = ["monai.bundle", *words]
    runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
    return 0
