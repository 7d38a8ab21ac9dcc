"""MONAI dictionary transforms."""

from .anisotropy import RandThickSlicesd
from .checks import CheckLabeld, CheckScand
from .grids import BothGridsd, answer_key
from .hemisphere import RandHealthyHalfd, without_tumour
from .intensity import ForegroundStatisticsd, StandardizeForegroundd
from .low_resolution import Coarsend, MultiResolutionPyramidd, coarsen_image, coarsen_label
from .modalities import LoadModalitiesd, RandDropModalityd
