"""Classes that only the paper's experiment uses (docs/experiment): baselines, its labels and crops, comparison.

The package itself imports nothing from here, and a built bundle does not contain it.
"""

from .center_crop_or_pad import CenterCropOrPadd
from .coarse_training import RandResolutionLeveld, RestoreResolutiond, coarsened_labels
from .comparison import paired_differences, read_rows
from .decoder_head import DecoderHead, DecoderHeadRAREUNet
from .fixed_level import FixedLevel
from .mean_shape import MeanShapeInferer
from .nearest_downsampled import NearestDownsampled
from .pad import PadInferer
from .predictions import PredictionsInferer
from .segmentation_saver import SegmentationSaver
from .test_time import TestTimeInferer
