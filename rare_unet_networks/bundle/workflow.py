"""The MONAI workflow that evaluates an expression of a config.

MONAI hands no expression the workflow or the arguments that it was created with. The functions here find them in the
calls that lead to the expression, so that ``create_workflow`` in Python is checked as a command line is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from monai.bundle import ConfigWorkflow, create_workflow
from monai.utils import ensure_tuple

__all__ = ["config_folder", "created_with"]


def _frames() -> Iterator[FrameType]:
    """The calls that lead here, the innermost first."""
    frame = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def config_folder() -> Path | None:
    """Folder of the configs of the workflow that evaluates this expression; None outside of one."""
    for frame in _frames():
        owner = frame.f_locals.get("self")
        if isinstance(owner, ConfigWorkflow):
            return Path(owner.config_root_path)
    return None


def created_with() -> tuple[list[str], dict[str, Any]] | None:
    """Config files and other arguments of the ``create_workflow`` call that evaluates this expression, or None."""
    for frame in _frames():
        if frame.f_code is create_workflow.__code__:
            values = frame.f_locals
            return [str(path) for path in ensure_tuple(values["config_file"])], dict(values["_args"])
    return None
