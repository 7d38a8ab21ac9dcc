"""Networks and their blocks."""

from .blocks import GatewayBlock, StackedConvBlocks, SubpixelHead
from .rare_unet import RAREUNet
