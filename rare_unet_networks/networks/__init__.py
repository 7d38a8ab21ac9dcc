"""Networks and their blocks."""

from .blocks import GatewayBlock, StackedConvBlocks, SubpixelHead
from .outputs import Prediction, PyramidOutput
from .rare_unet import RAREUNet
from .weights import load_weights
