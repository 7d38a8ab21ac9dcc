"""What MONAI's engines lack."""

from .evaluator import GuardedEvaluator, exit_status
from .prepare_batch import PreparePyramidBatch
