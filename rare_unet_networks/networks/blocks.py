"""Convolution blocks of RARE-UNet (Albertsen et al. 2025, section 3.2), built from MONAI's ``Convolution``."""

from __future__ import annotations

import torch
from monai.networks.blocks import Convolution, SubpixelUpsample, UpSample
from monai.networks.utils import icnr_init
from torch import nn
from torch.utils.checkpoint import checkpoint

__all__ = ["GatewayBlock", "StackedConvBlocks", "SubpixelHead"]


class StackedConvBlocks(nn.Sequential):
    """``num_convs`` times (convolution 3 with bias, normalisation, activation), without change of the grid.

    With ``use_checkpoint`` set (``RAREUNet(use_checkpoint=True)``) a training step keeps its input only and computes
    the rest again in the backward pass.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        out_channels: channels of the output and of everything between.
        num_convs: number of convolutions, at least 1.
        act: activation type and arguments, as in :py:class:`monai.networks.blocks.Convolution`.
        norm: normalisation type and arguments, likewise.

    Raises:
        ValueError: when ``num_convs`` is below 1.
    """

    use_checkpoint = False

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        num_convs: int = 2,
        act: str | tuple = ("leakyrelu", {"negative_slope": 0.01}),
        norm: str | tuple = ("instance", {"affine": True}),
    ) -> None:
        if num_convs < 1:
            raise ValueError(f"num_convs must be at least 1, got {num_convs}.")
        super().__init__(
            *(
                Convolution(
                    spatial_dims,
                    in_channels if i == 0 else out_channels,
                    out_channels,
                    kernel_size=3,
                    act=act,
                    norm=norm,
                    adn_ordering="NA",
                )
                for i in range(num_convs)
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.jit.is_scripting():  # noqa: SIM102  TorchScript leaves out what this alone decides
            if self.use_checkpoint and torch.is_grad_enabled():
                return checkpoint(super().forward, x, use_reentrant=False)
        for block in self:
            x = block(x)
        return x


class GatewayBlock(StackedConvBlocks):
    """Multi-scale gateway block (MSB): an image at 1/2^d becomes features like those of encoder stage d.

    Its output serves as the skip connection of level d and, pooled, as the input of encoder stage d + 1; it does not
    pool itself. Arguments as in :py:class:`StackedConvBlocks`; ``in_channels`` are the image's, ``out_channels``
    encoder stage d's. Shapes: (B, in_channels, *spatial_size) → (B, out_channels, *spatial_size).
    """


def doubling(spatial_dims: int, in_channels: int, out_channels: int, upsample: str) -> UpSample:
    """MONAI's ``UpSample`` to a grid twice as fine; transposed convolutions with kernel 3, the authors' choice."""
    kernel_size = 3 if upsample == "deconv" else None
    return UpSample(spatial_dims, in_channels, out_channels, 2, kernel_size=kernel_size, mode=upsample)


class SubpixelHead(SubpixelUpsample):
    """Head that answers on a grid ``scale`` times as fine as its features: convolutions, then a pixel shuffle.

    All it computes, it computes on the coarse grid (Shi et al. 2016, "Real-Time Single Image and Video
    Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural Network"): the classes of the ``scale`` ** 3 fine
    voxels in a coarse one are channels until the shuffle. Initialised so that they are equal (ICNR, no bias).

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the features.
        out_channels: classes, background included.
        scale: ratio of the two grids, at least 2.
        num_convs: 3×3×3 convolutions before the projection, at least 1.
        act: as in :py:class:`StackedConvBlocks`.
        norm: likewise.
        hidden_channels: what those convolutions give, ``in_channels`` by default. All fine voxels of a coarse one are
            linear in them, so few of them mean few shapes.

    Shapes: (B, in_channels, *spatial_size) → (B, out_channels, *(scale · spatial_size)).
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        scale: int,
        num_convs: int = 1,
        act: str | tuple = ("leakyrelu", {"negative_slope": 0.01}),
        norm: str | tuple = ("instance", {"affine": True}),
        hidden_channels: int | None = None,
    ) -> None:
        subvoxels = out_channels * scale**spatial_dims
        hidden = in_channels if hidden_channels is None else hidden_channels
        project = Convolution(spatial_dims, hidden, subvoxels, kernel_size=1, conv_only=True)
        icnr_init(project.conv, scale)
        nn.init.zeros_(project.conv.bias)
        convs = nn.Sequential(StackedConvBlocks(spatial_dims, in_channels, hidden, num_convs, act, norm), project)
        super().__init__(spatial_dims, in_channels, out_channels, scale, conv_block=convs, apply_pad_pool=False)
