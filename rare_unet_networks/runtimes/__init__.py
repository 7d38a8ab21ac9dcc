"""Export of networks to other runtimes, and loading of exports."""

from .export import LevelPath, export_runtimes
from .load import RUNTIMES, LevelPrograms, load_runtime
