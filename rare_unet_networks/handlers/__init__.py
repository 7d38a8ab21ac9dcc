"""Ignite handlers."""

from .case_records import CaseRecordSaver
from .case_reports import ReportSaver
from .checkpoints import AtomicDiskSaver, BestCheckpointSaver, ResumableCheckpoint, last_epoch, latest_checkpoint
from .dicom_seg import DicomSegSaver
from .reports import PerCaseMetricsSaver
from .tracking import WandBHandler
from .training import (
    ClipGradients,
    KeepLossOnly,
    ProgressBar,
    cosine_decay,
    has_tensorboard,
)
from .weights import WeightsLoader
