"""What went wrong, in one line of words."""

from __future__ import annotations

import re

import torch

__all__ = ["is_user_error", "one_line", "root_cause"]

LONG = 1000  # characters of a reason
TRACEBACK = "Traceback (most recent call last)"
# What follows is for developers of PyTorch: C++ frames, and advice on how to debug a GPU.
DEVELOPERS = re.compile(
    r"\n?(Exception raised from |frame #\d+|C\+\+ CapturedTraceback|CUDA kernel errors might|"
    r"For debugging consider|Compile with `TORCH_USE_CUDA_DSA`).*",
    re.DOTALL,
)
# Where PyTorch's C++ code found it, in front of what it found.
ENFORCE = re.compile(r"\[enforce fail at [^\]]*\]\s*[.:]?\s*")
ALLOCATOR = re.compile(r"DefaultCPUAllocator: .*you tried to allocate (\d+) bytes.*", re.DOTALL)
# Messages of exceptions that are no sentence.
WORDS = {
    MemoryError: "not enough memory",
    KeyboardInterrupt: "stopped by the user",
    RecursionError: "nested too deeply",
    EOFError: "the file ends too early",
}


def innermost(error: BaseException) -> BaseException:
    """The exception that the others of a chain wrap."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def one_line(text: str) -> str:
    """Text with what would break or colour a line of a log written out: line breaks, escape codes, and the like."""
    characters = []
    for character in text:
        shown = character == " " or character.isprintable()
        characters.append(character if shown else character.encode("unicode_escape").decode("ascii"))
    return "".join(characters)


def _last_line(text: str) -> str:
    """The reason at the end of a traceback that a library put into its message."""
    if TRACEBACK not in text:
        return text
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1]


def _words(error: BaseException) -> str | None:
    """Words for a kind of exception whose own message is none; None where it has a message."""
    return next((words for kind, words in WORDS.items() if isinstance(error, kind)), None)


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or ALLOCATOR.search(str(error)) is not None


def is_user_error(error: BaseException) -> bool:
    """Whether a user can mend what went wrong: then its traceback helps nobody."""
    error = innermost(error)
    return isinstance(error, (ValueError, OSError, ImportError, KeyboardInterrupt)) or _is_out_of_memory(error)


def root_cause(error: BaseException) -> str:
    """What went wrong in one line: MONAI wraps an error of a transform or an expression in others.

    Of a message that holds another library's traceback its last line counts.
    """
    error = innermost(error)
    text = DEVELOPERS.sub("", _last_line(str(error)))
    text = ALLOCATOR.sub(lambda match: f"{int(match[1]) / 2**30:.1f} GiB were asked for", ENFORCE.sub("", text))
    text = one_line(" ".join(text.split()))
    words = WORDS[MemoryError] if _is_out_of_memory(error) else _words(error)
    if words:
        text = f"{words}: {text}" if text else words
    elif not text:
        text = f"{type(error).__name__} without a message"
    elif not isinstance(error, (ValueError, ImportError)) and TRACEBACK not in str(error):
        text = f"{type(error).__name__}: {text}"
    # Weights of another network are told parameter by parameter.
    return text if len(text) <= LONG else f"{text[:LONG]} …"
