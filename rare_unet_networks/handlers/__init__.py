"""Ignite handlers."""

from .checkpoints import AtomicDiskSaver, BestCheckpointSaver, ResumableCheckpoint, last_epoch, latest_checkpoint
from .reports import PerCaseMetricsSaver, VolumeSaver
from .resuming import CommandRecord, unfinished
from .tracking import WandBHandler
from .training import (
    ClipGradients,
    KeepLossOnly,
    ProgressBar,
    UpdateAverage,
    averaged_model,
    cosine_decay,
    has_tensorboard,
)
from .weights import WeightsLoader, load_weights
