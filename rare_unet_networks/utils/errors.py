"""The cause of an error in one line."""

from __future__ import annotations

import logging

__all__ = ["root_cause"]

logger = logging.getLogger(__name__)


MAX_LENGTH = 1000  # characters of a reason


def _innermost(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def root_cause(error: BaseException) -> str:
    """Cause of an error in one line: MONAI wraps errors of transforms and expressions in further ones."""
    error = _innermost(error)
    text = " ".join(str(error).split())
    text = text if isinstance(error, (ValueError, ImportError)) and text else f"{type(error).__name__}: {text}"
    # For weights of another network, torch lists every parameter.
    return text if len(text) <= MAX_LENGTH else f"{text[:MAX_LENGTH]} …"
