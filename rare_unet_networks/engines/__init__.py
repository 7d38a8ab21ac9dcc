"""What MONAI's engines lack."""

from .calibration import find_doubt_limits
from .collate import CollateAcquisitions
from .evaluator import FaultTolerantEvaluator, exit_status
from .prepare_batch import PreparePyramidBatch
