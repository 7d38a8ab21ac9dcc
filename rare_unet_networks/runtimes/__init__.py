"""Export of networks to other runtimes, and loading of exports.

What exports is imported at its first use, because that takes a second.
"""

from importlib import import_module

from .auto import AutoRuntime
from .load import RUNTIMES, LevelPrograms, load_runtime

__all__ = ["RUNTIMES", "AutoRuntime", "LevelPath", "LevelPrograms", "export_runtimes", "load_runtime"]


def __getattr__(name: str) -> object:
    if name in ("LevelPath", "export_runtimes"):
        return getattr(import_module(".export", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
