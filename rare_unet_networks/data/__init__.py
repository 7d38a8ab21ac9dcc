"""Lists of cases, datasets and writers."""

from .datalists import answer_postfix, at_levels, case_name, input_datalist
from .datasets import GuardedDataset, LevelsDataset, collate_patches
from .labelled import msd_datalist
from .modalities import modality_datalist
from .writers import SameShapeWriter
