"""RARE-UNet for MONAI: segmentation of 2-D and 3-D medical images at any input resolution."""

from . import (
    bundle,
    data,
    engines,
    handlers,
    inferers,
    levels,
    losses,
    metrics,
    networks,
    reports,
    runtimes,
    transforms,
    utils,
)
from .inferers import MirrorInferer, MultiLevelInferer, ResolutionRoutingInferer
from .levels import ResolutionLevels, Route
from .losses import RAREUNetLoss
from .networks import RAREUNet

__version__ = "0.7.0"
