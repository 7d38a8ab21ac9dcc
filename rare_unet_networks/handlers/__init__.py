"""Ignite handlers."""

from .checkpoints import AtomicDiskSaver, BestCheckpointSaver, ResumableCheckpoint, last_epoch, latest_checkpoint
from .reports import PerCaseMetricsSaver, VolumeSaver
from .resuming import CommandRecord, unfinished
from .tracking import WandBHandler
from .training import (
    ClipGradients,
    KeepLossOnly,
    ProgressBar,
    cosine_decay,
    has_tensorboard,
)
