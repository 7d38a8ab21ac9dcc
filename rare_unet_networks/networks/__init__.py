"""Networks and their blocks."""

from .blocks import ConvStack, GatewayBlock, SubpixelHead, recomputing
from .rare_unet import RAREUNet
