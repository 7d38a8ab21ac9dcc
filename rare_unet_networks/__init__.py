"""Networks, losses, transforms and inferers for segmentation at any input resolution (RARE-UNet) in MONAI."""

from .blocks import ConvStack, GatewayBlock, SubpixelHead, recomputing
from .checks import CheckLabeld, CheckScand
from .command_line import as_bool, as_path, bundle_root, check_command_line
from .datalists import answer_postfix, at_levels, case_name, input_datalist
from .datasets import msd_datalist
from .engines import (
    GuardedDataset,
    GuardedEvaluator,
    LevelsDataset,
    PreparePyramidBatch,
    collate_patches,
    exit_status,
)
from .exports import LevelPath, export_engines
from .grids import BothGridsd, answer_key
from .handlers import (
    BestCheckpointSaver,
    ClipGradients,
    LossAlone,
    ProgressBar,
    ResumableCheckpoint,
    UpdateAverage,
    averaged_model,
    cosine_decay,
    has_tensorboard,
    last_epoch,
)
from .healthy_halves import RandHealthyHalfd, without_tumour
from .inferers import ResolutionRoutingInferer
from .levels import Levels, Route, scale_name
from .losses import RAREUNetLoss
from .metrics import ScaleDice, dice_per_class, distance_per_class, has_scipy, volume_error_per_class
from .mirror import MirrorRoutingInferer
from .modalities import LoadModalitiesd, RandDropModalityd, modality_datalist
from .processes import join_processes, process_sampler
from .rare_unet import RAREUNet
from .reports import DiceReport, VolumeReport
from .resuming import CommandRecord, unfinished
from .runtimes import ENGINES, LevelPrograms, with_engine
from .several_levels import SeveralLevelsInferer
from .standardization import ForegroundStatisticsd, StandardizeForegroundd
from .summaries import summarise
from .thick_slices import RandThickSlicesd
from .tracking import WandBHandler
from .transforms import Coarsend, MultiResolutionPyramidd
from .writers import SameShapeWriter

__version__ = "0.6.1"
