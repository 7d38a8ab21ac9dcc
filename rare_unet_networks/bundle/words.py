"""What of a command line is checked when this package is imported: nothing of a command can switch that off.

The runner takes further words for ``init_id``, ``final_id`` and so on, and then leaves out what a config's
``initialize`` checks. A shell makes such words of an unquoted wildcard.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ..utils.errors import one_line
from .command_line import OPTION, command_options

__all__ = ["check_words"]

EXPRESSIONS = ("$", "@", "%")  # a value that begins so is evaluated


def _words(argv: Sequence[str]) -> list[str]:
    """Words of a command that are neither options nor their values."""
    words, is_value = [], False
    for word in argv[1:]:
        if OPTION.match(word):
            is_value = "=" not in word
        else:
            if not is_value:
                words.append(word)
            is_value = False
    return words


def check_words(argv: Sequence[str] | None = None) -> None:
    """Stops on words of a ``monai.bundle run`` command that are no option, and on a file that would be evaluated.

    Args:
        argv: the command, ``sys.argv`` by default; other programs are left alone.

    Raises:
        SystemExit: naming the words, or the option whose value is a file whose name begins with ``$``, ``@`` or ``%``.
    """
    argv = sys.argv if argv is None else argv
    options = command_options(argv)
    words = _words(argv) if options else []
    if words[:1] != ["run"]:
        return
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
