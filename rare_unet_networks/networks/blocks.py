"""Convolution blocks of RARE-UNet (Albertsen et al. 2025, section 3.2), built from MONAI's ``Convolution``."""

from __future__ import annotations

import torch
from monai.networks.blocks import Convolution, SubpixelUpsample, UpSample
from monai.networks.utils import icnr_init
from torch import nn
from torch.utils.checkpoint import checkpoint

__all__ = ["GatewayBlock", "StackedConvBlocks", "SubpixelHead"]


class StackedConvBlocks(nn.Sequential):
    """Stack of ``num_convs`` convolutions of kernel 3 with bias, each with normalisation and activation.

    The grid does not change. With ``use_checkpoint`` (gradient checkpointing, ``RAREUNet(use_checkpoint=True)``) a
    training step stores only the input of the stack and computes the rest again in the backward pass.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        out_channels: channels of the output and of the layers between.
        num_convs: number of convolutions, at least 1.
        act: activation type and arguments, as in :py:class:`monai.networks.blocks.Convolution`.
        norm: normalisation type and arguments, likewise.

    Raises:
        ValueError: if ``num_convs`` is below 1.
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
        if not torch.jit.is_scripting():  # noqa: SIM102  TorchScript skips the branch only if this stands alone
            if self.use_checkpoint and torch.is_grad_enabled():
                return checkpoint(super().forward, x, use_reentrant=False)
        for block in self:
            x = block(x)
        return x


class GatewayBlock(StackedConvBlocks):
    """Multi-scale gateway block (MSB): turns an image at scale 1/2^d into features like those of encoder stage d.

    Its output is the skip connection of level d and, after pooling, the input of encoder stage d + 1. The block itself
    does not pool. Arguments as in :py:class:`StackedConvBlocks`; ``in_channels`` are those of the image,
    ``out_channels`` those of encoder stage d. Shapes: (B, in_channels, *spatial_size) →
    (B, out_channels, *spatial_size).
    """


def doubling(spatial_dims: int, in_channels: int, out_channels: int, upsample: str) -> UpSample:
    """MONAI's ``UpSample`` by a factor of 2; transposed convolutions have kernel 3, as in the authors' code."""
    kernel_size = 3 if upsample == "deconv" else None
    return UpSample(spatial_dims, in_channels, out_channels, 2, kernel_size=kernel_size, mode=upsample)


class SubpixelHead(SubpixelUpsample):
    """Head that predicts on a grid ``scale`` times as fine as its features: convolutions, then a pixel shuffle.

    All convolutions run on the coarse grid (Shi et al. 2016, "Real-Time Single Image and Video Super-Resolution Using
    an Efficient Sub-Pixel Convolutional Neural Network"). Until the shuffle, the classes of the ``scale`` ** 3 fine
    voxels in a coarse voxel are channels. They are initialised to equal values (ICNR, no bias).

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the features.
        out_channels: classes, background included.
        scale: ratio of the two grids, at least 2.
        num_convs: 3×3×3 convolutions before the projection, at least 1.
        act: as in :py:class:`StackedConvBlocks`.
        norm: likewise.
        hidden_channels: output channels of these convolutions, ``in_channels`` by default. The fine voxels of a coarse
            voxel are a linear function of them, so few channels allow few shapes.

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
