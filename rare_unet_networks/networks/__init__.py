"""Networks and their blocks."""

from .blocks import GatewayBlock, StackedConvBlocks, SubpixelHead, set_grad_checkpointing
from .outputs import Prediction, PyramidOutput
from .rare_unet import RAREUNet
