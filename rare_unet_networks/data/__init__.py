"""Lists of cases, datasets, readers and writers."""

from .acquisitions import Acquisition, read_acquisitions
from .batches import collate_patches
from .datalists import case_id, expand_acquisitions, expand_levels, input_datalist, prediction_path
from .dataset_scans import scan_datalist
from .datasets import CachedDataset, FaultTolerantDataset, LevelsDataset
from .files import check_file
from .labelled import labelled_datalist
from .modalities import modality_datalist
from .readers import HeaderPreservingNibabelReader
from .records import CaseRecords
from .samplers import UnclaimedSampler
from .scan_reader import ScanReader
from .scored_levels import expand_scored_levels
from .volume_table import collect_volumes
from .writers import HeaderPreservingNibabelWriter, PredictionLayout, saved_case
