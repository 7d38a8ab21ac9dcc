"""Lists of cases, datasets and writers."""

from .datalists import answer_postfix, case_id, expand_levels, input_datalist
from .datasets import CachedDataset, FaultTolerantDataset, LevelsDataset, collate_patches
from .files import check_file
from .labelled import labelled_datalist
from .modalities import modality_datalist
from .writers import HeaderPreservingNibabelWriter
