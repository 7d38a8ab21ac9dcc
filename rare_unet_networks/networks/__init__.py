"""Networks and their blocks."""

from .blocks import GatewayBlock, StackedConvBlocks, SubpixelHead, set_grad_checkpointing
from .rare_unet import RAREUNet
