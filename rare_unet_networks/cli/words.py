"""Checks of the words of a ``monai.bundle run`` command, which no option can switch off.

A shell makes such words of a wildcard without quotes. The bundle runner takes them as ``init_id``, ``final_id``,
``meta_file`` and so on, and the checks in a config's ``initialize`` do not run. So the words are checked at the first
import of ``rare_unet_networks.bundle``. With three further words or more the runner itself stops before it reads a
config: ``unknown file input``, with the name of one of them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["EXPRESSIONS", "OPTION", "check_evaluation", "check_words", "repetition", "runner_words", "taken_apart"]

OPTION = re.compile(r"--?[A-Za-z]")
EXPRESSIONS = ("$", "@", "%")  # a value that begins so is evaluated
# MONAI's runner would take --help as an override.
HELP = """The options of a config are listed in docs/options.md, or by one of
    rare-unet hippocampus --help
    rare-unet evaluate hippocampus --help
Without the command rare-unet: python -m rare_unet_networks hippocampus --help"""


def runner_words(argv: Sequence[str] | None = None) -> list[str]:
    """Words after ``python -m monai.bundle``; none for other programs.

    Args:
        argv: the command, ``sys.argv`` by default.
    """
    argv = sys.argv if argv is None else argv
    return list(argv[1:]) if argv and Path(argv[0]).parts[-2:] == ("bundle", "__main__.py") else []


def taken_apart(words: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Options with their values, as Fire reads them, and the words that belong to none."""
    options = []
    others = []
    is_value = False  # whether the next word is the value of an option
    for word, following in zip(words, [*words[1:], "True"]):
        if OPTION.match(word):
            key, equals, value = word.lstrip("-").partition("=")
            value = value if equals else "True" if OPTION.match(following) else following
            options.append((key.replace("-", "_"), value))
            is_value = not equals
        else:
            if not is_value:
                others.append(word)
            is_value = False
    return options, others


def repetition(options: Sequence[tuple[str, str]]) -> str:
    """Says which option has several values, of which the runner would take the last; empty if none has."""
    for name, _ in options:
        values = [value for other, value in options if other == name]
        if len(set(values)) > 1:
            return f"--{name} is given as {' and as '.join(map(_shown, values))}: give it once"
    return ""


def _shown(text: str) -> str:
    """As ``utils.one_line``, without importing PyTorch: --help answers in less than a second."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def check_words(argv: Sequence[str] | None = None) -> None:
    """Checks a ``monai.bundle run`` command for extra words, repeated options, and file names that would be evaluated.

    For ``--help`` it says where the options are listed.

    Args:
        argv: the command, that of this process by default; commands of other programs are not checked.

    Raises:
        SystemExit: after ``--help``, on extra words, if an option has several values, or if the value of an option is
            a file name that begins with ``$``, ``@`` or ``%``.
    """
    pairs, words = taken_apart(runner_words(argv))
    options = dict(pairs)
    if words[:1] != ["run"]:
        return
    if "help" in options:
        print(HELP)
        raise SystemExit(0)
    # The first word is the runner's function, the second what a config runs.
    further = words[2:] if "run_id" not in options else words[1:]
    if further:
        raise SystemExit(
            f"error: {', '.join(map(_shown, further))} belong(s) to no option: of a wildcard without quotes an "
            "option takes the first file only. Give a folder, or run the command once per file."
        )
    if fault := repetition(pairs):
        raise SystemExit(f"error: {fault}")
    for name, value in options.items():
        check_evaluation(name, value)


def check_evaluation(name: str, value: str) -> None:
    """Checks that the value of an option is no file name that would be evaluated.

    Raises:
        SystemExit: if it is one.
    """
    if value.startswith(EXPRESSIONS) and Path(value).exists():
        raise SystemExit(
            f"error: --{name} {_shown(value)} is a file, but a value that begins with {value[0]} is evaluated: "
            f"write ./{_shown(value)}"
        )
