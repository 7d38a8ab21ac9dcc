"""An ablation: heads that predict at level 0 with a separate decoder instead of sub-pixel convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai.networks.blocks import Convolution
from torch import nn

from ..networks.blocks import StackedConvBlocks, doubling
from ..networks.rare_unet import RAREUNet

__all__ = ["DecoderHead", "DecoderHeadRAREUNet"]


class DecoderHead(nn.Sequential):
    """Predicts on a finer grid by continuing the decoder without skip connections: upsampling, convolutions, ….

    It costs more than :py:class:`SubpixelHead`, because its last convolutions work on the fine grid.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the features.
        out_channels: classes, background included.
        channels: channels after each doubling of the grid, as many as there are doublings.
        num_convs: 3×3×3 convolutions after each doubling.
        act: as in :py:class:`StackedConvBlocks`.
        norm: likewise.
        upsample: as in :py:class:`rare_unet_networks.networks.RAREUNet`.

    Shapes: (B, in_channels, *spatial_size) → (B, out_channels, *(2^len(channels) · spatial_size)).
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        num_convs: int = 1,
        act: str | tuple = ("leakyrelu", {"negative_slope": 0.01}),
        norm: str | tuple = ("instance", {"affine": True}),
        upsample: str = "deconv",
    ) -> None:
        stages: list[nn.Module] = []
        for i, o in zip([in_channels, *channels[:-1]], channels):
            stages.append(doubling(spatial_dims, i, o, upsample))
            stages.append(StackedConvBlocks(spatial_dims, o, o, num_convs, act, norm))
        project = Convolution(spatial_dims, channels[-1], out_channels, kernel_size=1, conv_only=True)
        super().__init__(*stages, project)


class DecoderHeadRAREUNet(RAREUNet):
    """``RAREUNet`` whose levels above 0 predict on the grid of level 0 through a :py:class:`DecoderHead`.

    Args:
        spatial_dims: as in :py:class:`rare_unet_networks.networks.RAREUNet`.
        in_channels: likewise.
        out_channels: likewise.
        channels: likewise; the head of level d has those of the stages d - 1 to 0.
        fine_convs: convolutions after each doubling of the grid, at least 1.
        act: likewise.
        norm: likewise.
        upsample: likewise.
        fine_channels: an argument of sub-pixel heads; must be None.
        kwargs: further arguments of :py:class:`rare_unet_networks.networks.RAREUNet`.

    Raises:
        ValueError: If ``fine_channels`` is given or ``fine_convs`` is below 1.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = (16, 32, 64, 128, 256),
        fine_convs: int = 1,
        act: str | tuple = ("leakyrelu", {"negative_slope": 0.01}),
        norm: str | tuple = ("instance", {"affine": True}),
        upsample: str = "deconv",
        fine_channels: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        if fine_channels is not None:
            raise ValueError(f"fine_channels must be None for decoder heads, got {fine_channels}.")
        if fine_convs < 1:
            raise ValueError(f"fine_convs must be at least 1, got {fine_convs}.")
        common = dict(act=act, norm=norm, upsample=upsample)
        super().__init__(spatial_dims, in_channels, out_channels, channels, **common, **kwargs)
        # As the sub-pixel heads: entry d - 1 is that of level d.
        self.full_heads = nn.ModuleList(
            DecoderHead(
                spatial_dims, channels[level], out_channels, channels[level - 1 :: -1], num_convs=fine_convs, **common
            )
            for level in range(1, self.num_levels)
        )
