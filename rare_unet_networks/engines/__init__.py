"""Engines and batch preparation that MONAI lacks."""

from .calibration import find_doubt_limits
from .collate import CollateAcquisitions
from .evaluator import FaultTolerantEvaluator, exit_status
from .prepare_batch import PreparePyramidBatch
