"""Ignite handlers."""

from .checkpoints import AtomicDiskSaver, BestCheckpointSaver, ResumableCheckpoint, last_epoch, latest_checkpoint
from .reports import DiceReport, VolumeReport
from .resuming import CommandRecord, unfinished
from .tracking import WandBHandler
from .training import (
    ClipGradients,
    LossAlone,
    ProgressBar,
    UpdateAverage,
    averaged_model,
    cosine_decay,
    has_tensorboard,
)
