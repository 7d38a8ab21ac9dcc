"""Helpers that several kinds share."""

from .distributed import alone_with, decided_by_first, gathered, join_processes, process_sampler, rank, world_size
from .errors import innermost_reason
from .geometry import (
    LINEAR,
    by,
    extent_of,
    rescaled_affine,
    spacing_of,
    symmetric_core,
    symmetric_margins,
    symmetric_pad,
)
from .resampling import like_scan, mean_of_blocks, plain, resample
from .tables import CaseTable, aligned, rows_there
