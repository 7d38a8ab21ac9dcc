"""MONAI dictionary transforms."""

from .acquisition import RandSimulateAcquisitiond, SimulateAcquisitiond, simulate_acquisition
from .anisotropy import RandAnisotropyd
from .checks import CheckLabeld, CheckScand
from .grids import ResampleToBothGridsd, ResampleToFineLabeld, prediction_key
from .hemisphere import RandMirrorHealthyHemisphered, mirror_healthy_hemisphere
from .intensity import ForegroundStatisticsd, StandardizeForegroundd
from .label_maps import AsLabelMapd
from .level_affine import RandAffineOfLeveld
from .level_grids import FineLabeld, ResampleToLabelLeveld, ResampleToLeveld
from .low_resolution import MultiResolutionPyramidd, PadPyramidd, SimulateLowResolutiond
from .margin_crop import RandMarginCropd
from .modalities import LoadModalitiesd, RandDropChannelsd
from .modality_acquisitions import RandModalityAcquisitionsd
from .pieces import KeepLargestPieced
from .quality import CheckFinited, ReviewPredictiond
from .skull import SkullStripper, skull_stripper
