"""Helpers that several kinds share."""

from .coarsening import coarsen, coarsen_label
from .distributed import (
    all_gather,
    broadcast_from_rank0,
    distributed_sampler,
    file_lock,
    init_distributed,
    rank,
    world_size,
)
from .errors import root_cause
from .geometry import (
    LINEAR,
    extent_of,
    format_size,
    rescaled_affine,
    scaled_box,
    spacing_of,
    symmetric_core,
    symmetric_margins,
    symmetric_pad,
)
from .resampling import area_resize, as_plain_tensor, copy_meta_like, resample
from .switches import is_on
from .tables import CaseTable, aligned, rows_there
