"""Resolution levels: at which level of the network a scan enters.

Only this folder decides on scales, sizes and spacings. Level 0 is the task's full resolution; voxels of level ``d`` are
``2 ** d`` times as large (:py:func:`level_scale`). RARE-UNet (Albertsen et al. 2025, section 3.2) rounds "the input
image size to the nearest matching resolution level". Here "nearest" is measured in log2, and a tie goes to the finer
level. Beyond the paper, a scan with a known voxel size is placed by that (mm) instead of by its size (voxels).
"""

from .grids import LevelGrids
from .resolution_levels import ResolutionLevels
from .route import Route
from .scales import OUTPUTS, check_divisible, check_level, format_scale, level_divisor, level_scale
