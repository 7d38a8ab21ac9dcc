"""Export of networks to other runtimes, and running them."""

from .export import LevelPath, export_runtimes
from .load import RUNTIMES, LevelPrograms, load_runtime
