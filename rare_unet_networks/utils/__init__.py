"""Helpers that several subpackages share."""

from .claims import Claims
from .coarsening import coarsen, coarsen_label
from .distributed import (
    all_gather,
    broadcast_from_rank0,
    distributed_sampler,
    init_distributed,
    rank,
    world_size,
)
from .errors import is_user_error, one_line, root_cause
from .files import replaced_as_a_whole, sha256
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
from .tables import aligned, append_rows, read_rows, write_rows
from .trust import TrustNotes
from .trust_model import TrustModel, trust_entries
