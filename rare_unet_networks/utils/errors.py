"""The cause of an error in one line."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

__all__ = ["RefusedError", "innermost", "is_out_of_memory", "is_user_error", "one_line", "root_cause"]

MAX_LENGTH = 1000  # characters of a reason
TRACEBACK = "Traceback (most recent call last)"
# Parts of a message for developers of PyTorch, up to its end: C++ frames, and advice on how to debug a GPU.
DEVELOPERS = re.compile(
    r"\n?(Exception raised from |frame #\d+|C\+\+ CapturedTraceback|CUDA kernel errors might|"
    r"For debugging consider|Compile with `TORCH_USE_CUDA_DSA`).*",
    re.DOTALL,
)
# The place in PyTorch's C++ code, at the beginning of a message.
ENFORCE = re.compile(r"\[enforce fail at [^\]]*\]\s*[.:]?\s*")
ERRNO = re.compile(r"^\[Errno \d+\] ")  # before the words of an error of the operating system
ALLOCATOR = re.compile(r"DefaultCPUAllocator: .*you tried to allocate (\d+) bytes.*", re.DOTALL)
# Words for exceptions whose own message is empty or does not say the reason.
WORDS = {
    MemoryError: "not enough memory",
    KeyboardInterrupt: "stopped by the user",
    RecursionError: "nested too deeply",
    EOFError: "the file ends too early",
}


class RefusedError(ValueError):
    """Raised for a scan that could be segmented, but whose result would mislead.

    Args:
        name: file or folder of the scan.
        reason: why, in words.
        spacing: its voxel size in mm.
    """

    def __init__(self, name: str, reason: str, spacing: Sequence[float]) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason
        self.spacing = [float(s) for s in spacing]


def innermost(error: BaseException) -> BaseException:
    """Innermost exception of a chain."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def one_line(text: str) -> str:
    """Escapes line breaks and control codes, which would break or colour a line of a log."""
    characters = []
    for character in text:
        is_shown = character == " " or character.isprintable()
        characters.append(character if is_shown else character.encode("unicode_escape").decode("ascii"))
    return "".join(characters)


def _last_line(text: str) -> str:
    """Last line of a message that contains the traceback of a library; other messages are not changed."""
    if TRACEBACK not in text:
        return text
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1]


def _words(error: BaseException) -> str | None:
    """Words for an exception whose own message does not say the reason; None for other exceptions."""
    for kind, words in WORDS.items():
        if isinstance(error, kind):
            return words
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether there was too little memory, which PyTorch says with a ``RuntimeError`` on a CPU."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or ALLOCATOR.search(str(error)) is not None


def is_user_error(error: BaseException) -> bool:
    """Whether a user can correct the error, without the help of a traceback."""
    error = innermost(error)
    return isinstance(error, (ValueError, OSError, ImportError, KeyboardInterrupt)) or is_out_of_memory(error)


def _is_bare(error: BaseException, text: str) -> bool:
    """Whether a message needs the name of its exception: that of a programming error, or a file's name alone."""
    is_name = isinstance(error, OSError) and " " not in text
    return is_name or not isinstance(error, (ValueError, ImportError, OSError))


def root_cause(error: BaseException) -> str:
    """Cause of an error in one line: MONAI wraps errors of transforms and expressions in further ones.

    If the message contains the traceback of a library, only its last line is used.
    """
    error = innermost(error)
    text = DEVELOPERS.sub("", _last_line(str(error)))
    text = ALLOCATOR.sub(lambda match: f"{int(match[1]) / 2**30:.1f} GiB were asked for", ENFORCE.sub("", text))
    text = one_line(" ".join(ERRNO.sub("", text).split()))
    words = WORDS[MemoryError] if is_out_of_memory(error) else _words(error)
    if words:
        text = f"{words}: {text}" if text else words
    elif not text:
        text = f"{type(error).__name__} without a message"
    elif _is_bare(error, text) and TRACEBACK not in str(error):
        text = f"{type(error).__name__}: {text}"
    # For weights of another network, torch lists every parameter.
    return text if len(text) <= MAX_LENGTH else f"{text[:MAX_LENGTH]} …"
