"""What the paper's experiment needs beside the package (docs/experiment): baselines, its labels and crops, comparison.

The package itself imports nothing from here, and a built bundle does not carry it.
"""

from .answer_saver import SegmentationSaver
from .coarse_training import RandResolutionLeveld, RestoreResolutiond, coarsened_labels
from .comparison import paired_differences, read_rows
from .crop_or_pad import CenterCropOrPadd
from .decoder_head import DecoderHead, DecoderHeadRAREUNet
from .first_of_block import NearestDownsampled
from .mean_shape import MeanShapeInferer
from .pad import PadInferer
from .predictions import PredictionsInferer
