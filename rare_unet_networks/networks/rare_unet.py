"""RARE-UNet: one U-Net with an entrance (gateway) and an exit (head) at several resolutions.

Paper: S. W. Albertsen, H. S. Bjørnstrup, M. M. Ghazi, "RARE-UNet: Resolution-Aligned Routing Entry for Adaptive
Medical Image Segmentation", 2025. The defaults are the blocks of the authors' published implementation.

Differences from the authors' code: it is built from MONAI's blocks, in 2-D and 3-D, with any number of levels. The
pyramid of inputs is an argument and is not made inside ``forward``. Inputs are never resized; the inferer pads instead.
Beyond the paper, a coarse level can also predict on the level 0 grid (``fine_convs``), at the cost of a coarse level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import List, Optional, Tuple, Union  # TorchScript reads these

import torch
from monai.networks.blocks import Convolution
from monai.networks.layers.factories import Dropout, Pool
from torch import nn

from ..levels import check_divisible, level_divisor, level_scale
from .blocks import GatewayBlock, StackedConvBlocks, SubpixelHead, doubling
from .outputs import Prediction, PyramidOutput

__all__ = ["RAREUNet"]


class RAREUNet(nn.Module):
    """U-Net in which a scan enters at the encoder level of its own resolution.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: classes, background included.
        channels: features of each encoder stage, at least 2 entries; each stage works on a grid half as fine as the
            stage before. The last stage is the bottleneck.
        num_gateways: entrances besides the full-resolution one, at levels 1 to ``num_gateways``; by default one for
            every stage between the first and the bottleneck. 0 makes a plain U-Net.
        stage_convs: convolutions of an encoder stage and of the bottleneck.
        decoder_convs: convolutions of a decoder stage.
        gate_convs: convolutions of a gateway.
        act: activation type and arguments.
        norm: normalisation type and arguments.
        dropout: probability of dropping a whole feature map after each pooling and each decoder stage.
        upsample: a mode of :py:class:`monai.networks.blocks.UpSample`: ``"deconv"`` (kernel 3, the authors' choice),
            ``"nontrainable"`` or ``"pixelshuffle"``.
        fine_convs: convolutions of the heads with which the levels above 0 also predict on the level 0 grid
            (``output="fine"``). With 0, the paper's network, there are no such heads.
        fine_channels: hidden channels of these heads (``SubpixelHead``), one entry per level above 0; by default the
            channels of the level.
        use_checkpoint: gradient checkpointing: a training step takes less memory and more time.

    Raises:
        ValueError: if an argument is out of range.

    Example::

        net = RAREUNet(spatial_dims=3, in_channels=1, out_channels=3)  # 5 stages, levels 0 to 3
        x = torch.rand(2, 1, 32, 64, 32)
        net(x).shape  # (2, 3, 32, 64, 32), the path of level 0
        net(torch.rand(2, 1, 8, 16, 8), level=2).shape  # (2, 3, 8, 16, 8), the path of level 2

        # training: one call takes the pyramid, inputs of 1, 1/2, 1/4 and 1/8
        pyramid = [torch.nn.functional.avg_pool3d(x, 2**d) for d in range(4)]
        output = net(pyramid)
        [tuple(y.shape[2:]) for y in output.logits]  # (32, 64, 32), (16, 32, 16), (8, 16, 8), (4, 8, 4)
        [g.shape == e.shape for g, e in output.features]  # three pairs (gateway feature, encoder feature)
        output.fine  # [], or with fine_convs three more logits, of levels 1 to 3 and of size (32, 64, 32)
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = (16, 32, 64, 128, 256),
        num_gateways: int | None = None,
        stage_convs: int = 2,
        decoder_convs: int = 1,
        gate_convs: int = 2,
        act: str | tuple = ("leakyrelu", {"negative_slope": 0.01}),
        norm: str | tuple = ("instance", {"affine": True}),
        dropout: float = 0.0,
        upsample: str = "deconv",
        fine_convs: int = 0,
        fine_channels: Sequence[int] | None = None,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}.")
        if len(channels) < 2:
            raise ValueError(f"channels must have at least 2 entries (a stage and the bottleneck), got {channels}.")
        num_gateways = len(channels) - 2 if num_gateways is None else num_gateways
        if not 0 <= num_gateways <= len(channels) - 2:
            raise ValueError(
                f"num_gateways must be 0 to {len(channels) - 2} for {len(channels)} channels, got {num_gateways}."
            )
        if fine_convs and fine_channels is not None and len(fine_channels) != num_gateways:
            raise ValueError(
                f"fine_channels must be {num_gateways} numbers, one per level above 0, got {fine_channels}."
            )
        self.num_levels = num_gateways + 1
        self.num_stages = len(channels)

        def stack(block: type[StackedConvBlocks], inputs: int, outputs: int, num_convs: int) -> StackedConvBlocks:
            return block(spatial_dims, inputs, outputs, num_convs, act=act, norm=norm)

        def drop() -> nn.Module:
            return Dropout[Dropout.DROPOUT, spatial_dims](dropout) if dropout else nn.Identity()

        inputs = [in_channels, *channels[:-1]]
        self.encoder = nn.ModuleList(
            stack(StackedConvBlocks, i, o, stage_convs) for i, o in zip(inputs, channels)
        )  # entry d: stage d
        self.gateways = nn.ModuleList(
            stack(GatewayBlock, in_channels, c, gate_convs) for c in channels[1 : self.num_levels]
        )  # entry d - 1: gateway d
        self.down = nn.Sequential(Pool[Pool.MAX, spatial_dims](kernel_size=2), drop())
        # Deepest first, the order in which they run: the path of level d uses the first entries, up to stage d.
        deepest_first = list(channels[::-1])
        self.upsamples = nn.ModuleList(
            doubling(spatial_dims, i, o, upsample) for i, o in zip(deepest_first[:-1], deepest_first[1:])
        )
        self.decoder = nn.ModuleList(
            nn.Sequential(stack(StackedConvBlocks, 2 * c, c, decoder_convs), drop()) for c in deepest_first[1:]
        )
        self.heads = nn.ModuleList(
            Convolution(spatial_dims, c, out_channels, kernel_size=1, conv_only=True)
            for c in channels[: self.num_levels]
        )

        def head(level: int) -> SubpixelHead:
            hidden = (fine_channels or channels[1:])[level - 1]
            options = dict(num_convs=fine_convs, act=act, norm=norm, hidden_channels=hidden)
            return SubpixelHead(spatial_dims, channels[level], out_channels, level_scale(level), **options)

        self.full_heads = nn.ModuleList(
            head(level) for level in range(1, self.num_levels if fine_convs else 0)
        )  # entry d - 1: level d
        for module in self.modules():
            if isinstance(module, StackedConvBlocks):
                module.use_checkpoint = use_checkpoint

    def forward(
        self,
        x: Union[torch.Tensor, List[torch.Tensor]],
        level: int = 0,
        levels: Optional[List[int]] = None,
        output: str = "scan",
        num_fine: Optional[int] = None,
    ) -> Union[torch.Tensor, Prediction, PyramidOutput]:
        """Runs one path, or, for a list of inputs, all paths of a training step.

        Args:
            x: image of shape (B, C, *spatial_size), every axis divisible by ``divisor(level)``; or a pyramid, a list
                with one such image per active level, the image of level d 1/2^d as large as that of level 0. A level
                may have fewer members than coarser ones: their first ones.
            level: level at which a single image enters.
            levels: the active levels of the pyramid in ascending order; by default 0, 1, …, one per image.
            output: for an image, ``"scan"`` predicts on its own grid, ``"fine"`` on that of level 0, ``"both"`` on
                both.
            num_fine: of a pyramid, the number of first members that are predicted on the grid of level 0; by default
                all of them.

        Returns:
            For an image: logits of shape (B, out_channels, *spatial_size), for ``output="fine"`` with a
            ``spatial_size`` ``level_scale(level)`` times as large, for ``output="both"`` a ``Prediction`` of the two.
            For a pyramid: a ``PyramidOutput``.

        Raises:
            ValueError: if ``level`` or ``levels`` name a level that does not exist, a size is not divisible, or the
                network cannot give ``output``.
        """
        if isinstance(x, torch.Tensor):
            y = self.run_path(x, level)[0]
            if output == "scan" or (output == "fine" and level == 0):
                return self._scan(y, level)
            if output == "fine":
                return self._fine(y, level)
            if output != "both":
                raise ValueError(f"output must be 'scan', 'fine' or 'both', got {output}.")
            scan = self._scan(y, level)
            return Prediction(scan, self._fine(y, level) if level > 0 else scan)
        if torch.jit.is_scripting():
            raise ValueError("x must be one image in a scripted network, which is for inference, got a list.")
        active = list(range(len(x))) if levels is None else list(levels)
        if len(active) != len(x) or active != sorted(set(active)):
            raise ValueError(f"levels must name {len(x)} ascending levels, one per image of the pyramid, got {active}.")
        logits: List[torch.Tensor] = []
        features: List[Tuple[torch.Tensor, torch.Tensor]] = []
        fine: List[torch.Tensor] = []
        encoded: List[torch.Tensor] = []
        for d, image in zip(active, x):
            y, encodings = self.run_path(image, d)
            logits.append(self._scan(y, d))
            if d > 0 and len(self.full_heads) and num_fine != 0:
                fine.append(self._fine(y[:num_fine], d))
            if d == 0:
                encoded = encodings
            elif encoded:
                gate = encodings[0][: len(encoded[d])]
                if gate.shape != encoded[d].shape:
                    raise ValueError(
                        f"the image of level {d} must be 1/{level_scale(d)} as large as that of level 0, got "
                        f"{tuple(image.shape[2:])} and {tuple(x[0].shape[2:])}."
                    )
                features.append((gate, encoded[d]))
        return PyramidOutput(logits, features, fine)

    def divisor(self, level: int) -> int:
        """Number that every axis of an image that enters at ``level`` must be divisible by.

        Raises:
            ValueError: if the level does not exist.
        """
        return level_divisor(level, self.num_levels, self.num_stages)

    def run_path(self, x: torch.Tensor, level: int) -> Tuple[torch.Tensor, List[torch.Tensor]]:
        """Runs the path of one level: its entrance, the deeper encoder stages, and the decoder up to ``level``.

        Returns:
            the decoder's features on the grid of ``x``, which are the input of the level's heads; and the encoder's
            features of the stages ``level`` to the bottleneck, the first of them the gateway's if ``level`` is above 0.
        """
        check_divisible(x.shape[2:], level, self.divisor(level))
        # TorchScript unrolls loops over module lists but cannot index them by a variable, so they are never indexed.
        features: List[torch.Tensor] = []
        for d, gateway in enumerate(self.gateways):
            if d + 1 == level:
                features.append(gateway(x))  # (B, channels[level], *spatial_size)
        for d, stage in enumerate(self.encoder):
            if d == 0:
                if level == 0:
                    features.append(stage(x))
            elif d > level:
                features.append(stage(self.down(features[-1])))
        y = features[-1]
        for i, (upsample, block) in enumerate(zip(self.upsamples, self.decoder)):
            d = self.num_stages - 2 - i
            if d >= level:
                y = block(torch.cat((features[d - level], upsample(y)), dim=1))
        return y, features

    def _scan(self, y: torch.Tensor, level: int) -> torch.Tensor:
        """Logits on the grid of the image."""
        for d, head in enumerate(self.heads):
            if d == level:
                y = head(y)
        return y

    def _fine(self, y: torch.Tensor, level: int) -> torch.Tensor:
        """Logits on the grid of level 0, for a level above 0."""
        if len(self.full_heads) == 0:
            raise ValueError("output must be 'scan' for a network without fine_convs, got 'fine'.")
        for d, head in enumerate(self.full_heads):
            if d + 1 == level:
                y = head(y)
        return y
