"""Checks of the command line when this package is imported, which no option can switch off.

The bundle runner uses extra words as ``init_id``, ``final_id`` and so on, so that the checks in a config's
``initialize`` do not run. A shell makes such words of a wildcard without quotes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ..utils.errors import one_line
from .command_line import OPTION, command_options
from .device import EXPRESSIONS

__all__ = ["check_words"]

# MONAI's runner would take --help as an override.
HELP = """The options of a config are listed in docs/options.md, or by one of
    rare-unet hippocampus --help
    rare-unet evaluate hippocampus --help
Without the command rare-unet: python -m rare_unet_networks hippocampus --help"""


def _words(argv: Sequence[str]) -> list[str]:
    """Words of a command that are neither options nor their values."""
    words = []
    is_value = False  # whether the next word is the value of an option
    for word in argv[1:]:
        if OPTION.match(word):
            is_value = "=" not in word
        else:
            if not is_value:
                words.append(word)
            is_value = False
    return words


def check_words(argv: Sequence[str] | None = None) -> None:
    """Checks a ``monai.bundle run`` command for extra words, and for file names that would be evaluated.

    For ``--help`` it says where the options are listed.

    Args:
        argv: the command, ``sys.argv`` by default; commands of other programs are not checked.

    Raises:
        SystemExit: after ``--help``, on extra words, or if the value of an option is a file name that begins with
            ``$``, ``@`` or ``%``.
    """
    argv = sys.argv if argv is None else argv
    options = command_options(argv)
    words = _words(argv) if options else []
    if words[:1] != ["run"]:
        return
    if "help" in options:
        print(HELP)
        raise SystemExit(0)
    # The first word is the runner's function, the second what a config runs.
    further = words[2:] if "run_id" not in options else words[1:]
    if further:
        raise SystemExit(
            f"error: {', '.join(map(one_line, further))} belong(s) to no option: of a wildcard without quotes an "
            "option takes the first file only. Give a folder, or run the command once per file."
        )
    for name, value in options.items():
        if value.startswith(EXPRESSIONS) and Path(value).exists():
            raise SystemExit(
                f"error: --{name} {one_line(value)} is a file, but a value that begins with {value[0]} is evaluated: "
                f"write ./{one_line(value)}"
            )
