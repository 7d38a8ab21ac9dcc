"""Lists of cases, datasets and writers."""

from .datalists import answer_postfix, case_id, expand_acquisitions, expand_levels, input_datalist
from .datasets import FaultTolerantDataset, LevelsDataset, collate_patches
from .labelled import labelled_datalist
from .modalities import modality_datalist
from .writers import HeaderPreservingNibabelWriter
