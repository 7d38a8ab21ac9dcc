"""Engines and batch preparation that MONAI lacks."""

from .collate import CollateAcquisitions
from .evaluator import FaultTolerantEvaluator, exit_status
from .prepare_batch import PreparePyramidBatch
