"""Export of networks to other runtimes, and running them."""

from .export import LevelPath, export_engines
from .load import ENGINES, LevelPrograms, with_engine
