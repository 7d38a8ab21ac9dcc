"""Measures of a segmentation, and their summary."""

from .acquisitions import AcquisitionMetrics
from .multi_scale import MultiScaleMetrics, dice_per_class, distance_per_class, has_scipy, volume_error_per_class
from .summary import KEY, ROW, SUMMARY_ROW, mean_of_defined, mean_or_nan, summarise
