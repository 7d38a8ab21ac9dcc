"""What went wrong, in one line."""

from __future__ import annotations

import logging

__all__ = ["root_cause"]

logger = logging.getLogger(__name__)


LONG = 1000  # characters of a reason


def _innermost(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def root_cause(error: BaseException) -> str:
    """What went wrong in one line: MONAI wraps an error of a transform or an expression in others."""
    error = _innermost(error)
    text = " ".join(str(error).split())
    text = text if isinstance(error, (ValueError, ImportError)) and text else f"{type(error).__name__}: {text}"
    # Weights of another network are told parameter by parameter.
    return text if len(text) <= LONG else f"{text[:LONG]} …"
