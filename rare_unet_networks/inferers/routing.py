"""Inference at the scan's own resolution (Albertsen et al. 2025, section 3.2 "Inference").

The paper resizes every input to one of the training sizes. Here a scan is placed by its voxel size, and only axes that
differ from the level's spacing are resampled. Sizes are padded and never cropped. The prediction is returned on the
scan's own grid or on the finer grid of level 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

import torch
from monai.inferers import SlidingWindowInferer
from monai.transforms.utils import generate_spatial_bounding_box
from monai.utils import ensure_tuple

from ..levels import OUTPUTS, ResolutionLevels
from ..utils.geometry import format_size, scaled_box, symmetric_core, symmetric_pad
from .base import RoutingInferer, ScanNotes, logger
from .window import window_size

__all__ = ["ResolutionRoutingInferer"]

CERTAIN = 20.0  # logit of certain background: other classes get a probability below 1e-17; it fits into float16


def paste_into_background(logits: torch.Tensor, box: Sequence[slice], spatial_size: Sequence[int]) -> torch.Tensor:
    """Pastes ``logits`` at ``box`` into a grid of ``spatial_size`` voxels, filled with certain background."""
    if tuple(logits.shape[2:]) == tuple(spatial_size):
        return logits
    whole = logits.new_full((*logits.shape[:2], *spatial_size), -CERTAIN)
    whole[:, 0] = CERTAIN
    whole[(..., *box)] = logits
    return whole


def _roi_size(window: SlidingWindowInferer, spatial_dims: int) -> tuple[int, ...]:
    """Voxels of a window, one number per axis; MONAI also takes one number for all axes."""
    roi_size = ensure_tuple(window.roi_size)
    return roi_size * spatial_dims if len(roi_size) == 1 else roi_size


class ResolutionRoutingInferer(RoutingInferer):
    """Sends a scan through the gateway of its resolution and returns logits on the scan's or on the level 0 grid.

    1. The level is chosen by :py:meth:`rare_unet_networks.levels.ResolutionLevels.route` and logged with its reason.
    2. Axes whose spacing differs from the level's by more than the tolerance (10 %) are resampled linearly. An axis
       that becomes coarser is smoothed first. A scan of 1×1×4 mm enters at level 0 with its thick axis resampled, one
       of 1.5 mm enters at level 1.
    3. With ``crop_foreground`` the scan is cropped to the box of its foreground. The grid is padded to a size that the
       level can process, and the path of the level is run: ``network(x, level=level)``.
    4. The padding is removed from the logits; outside the box background is predicted. With ``output="scan"`` the
       logits are interpolated linearly to the input's grid. With ``output="fine"`` they stay on the grid of level 0,
       over the same extent. ``output="both"`` returns both from one forward pass.

    With a single level this is a plain U-Net, whose input is resampled to full resolution.

    Args:
        levels: the resolution levels of the task.
        window: MONAI's sliding window, used for grids larger than its ``roi_size``. This is in voxels of level 0 and
            must be a size that level 0 can process; at a coarser level the window covers as many mm with fewer voxels.
            By default every grid goes through the network at once.
        cval: intensity of the padding. 0 is the minimum after scaling to [0, 1], and the background after
            ``NormalizeIntensityd(nonzero=True)``.
        output: ``"scan"``, ``"fine"`` or ``"both"``; the last two need a network that predicts on the level 0 grid.
        crop_foreground: whether to compute only the box of the voxels that differ from ``cval`` in any channel; for
            scans with a constant background, such as brains without skull.
        fine_from: level from which on ``output="both"`` returns the prediction on the level 0 grid alone. The one on
            the scan's grid is then its average (:py:class:`rare_unet_networks.transforms.ResampleToBothGridsd`), for
            levels at which that is better than their own head. By default the heads of all levels are used.

    Raises:
        ValueError: if the window's ``roi_size`` does not fit ``levels``, ``output`` is unknown, or ``fine_from`` is no
            level above 0.

    Example::

        levels = ResolutionLevels(num_levels=4, spatial_size=(32, 64, 32), spacing=(1.0, 1.0, 1.0))
        inferer = ResolutionRoutingInferer(levels)
        net = RAREUNet(spatial_dims=3, in_channels=1, out_channels=3).eval()
        inferer(torch.rand(1, 1, 18, 26, 17), net).shape  # (1, 3, 18, 26, 17), by size: level 1
        scan = MetaTensor(torch.rand(1, 1, 40, 50, 12), affine=torch.diag(torch.tensor([1.0, 1.0, 4.0, 1.0])))
        inferer(scan, net).shape  # (1, 3, 40, 50, 12), level 0, resampled to 40×50×48, padded to 48×64×48

        net = RAREUNet(spatial_dims=3, in_channels=1, out_channels=3, fine_convs=1).eval()
        window = SlidingWindowInferer(roi_size=(128, 128, 128), mode="gaussian")
        inferer = ResolutionRoutingInferer(levels, window, output="fine")
        inferer(torch.rand(1, 1, 18, 26, 17), net).shape  # (1, 3, 36, 52, 34), level 1, predicted at 1 mm
    """

    def __init__(
        self,
        levels: ResolutionLevels,
        window: SlidingWindowInferer | None = None,
        cval: float = 0.0,
        output: str = "scan",
        crop_foreground: bool = False,
        fine_from: int | None = None,
    ) -> None:
        super().__init__()
        if window is not None:
            roi_size = _roi_size(window, levels.spatial_dims)
            fitting = levels.padded_size(roi_size, level=0)
            if fitting != roi_size:
                raise ValueError(f"window.roi_size must be a size level 0 can process, as {fitting}, got {roi_size}.")
        if output not in OUTPUTS:
            raise ValueError(f"output must be one of {OUTPUTS}, got {output!r}.")
        if fine_from is not None and fine_from < 1:
            raise ValueError(f"fine_from must be a level above 0, got {fine_from}.")
        self.levels = levels
        self.fine_from = fine_from
        self.window = window
        self.cval = cval
        self.output = output
        self.crop_foreground = crop_foreground

    def predict(
        self, x: torch.Tensor, level: int, output: str, network: Callable[..., Any], notes: ScanNotes
    ) -> dict[str, torch.Tensor]:
        """As :py:meth:`rare_unet_networks.inferers.base.RoutingInferer.predict`."""
        box = self.box(x)
        size = [s.stop - s.start for s in box]
        if size != list(x.shape[2:]):
            logger.debug(f"foreground in {format_size(size)} of {format_size(x.shape[2:])} voxels")
        padded_size = self.levels.padded_size(size, level)
        padded = symmetric_pad(x[(..., *box)], padded_size, self.cval)
        keys = {"scan": ("pred",), "fine": ("pred_fine",), "both": ("pred", "pred_fine")}[output]

        def run(window: torch.Tensor) -> dict[str, torch.Tensor]:
            if level == 0:  # the two grids are the same
                return {keys[0]: network(window, level=0)}
            if output == "scan":
                return {"pred": network(window, level=level)}
            logits = network(window, level=level, output=output)
            return dict(zip(keys, logits if output == "both" else (logits,)))

        predictions = {}
        for key, logits in self._slide(padded, run, level).items():
            scale = self.levels.scale(level) if key == "pred_fine" else (1,) * len(size)
            logits = logits[(..., *symmetric_core(size, padded_size, scale))]
            whole_size = [n * s for n, s in zip(x.shape[2:], scale)]
            predictions[key] = paste_into_background(logits, scaled_box(box, scale), whole_size)
        return predictions if level > 0 else dict.fromkeys(keys, predictions[keys[0]])

    def box(self, x: torch.Tensor) -> list[slice]:
        """All of ``x``, or with ``crop_foreground`` the box of the foreground of all members of the batch."""
        whole = [slice(0, n) for n in x.shape[2:]]
        if not self.crop_foreground:
            return whole
        start, stop = generate_spatial_bounding_box(x.flatten(0, 1), lambda image: image != self.cval)
        return [slice(a, b) for a, b in zip(start, stop)] if max(stop) > 0 else whole

    def _slide(
        self, x: torch.Tensor, run: Callable[[torch.Tensor], dict[str, torch.Tensor]], level: int
    ) -> dict[str, torch.Tensor]:
        """Runs the network at once or, if ``x`` is larger than a window of its level, window by window."""
        if self.window is None:
            return run(x)
        roi_size = _roi_size(self.window, self.levels.spatial_dims)
        largest = window_size(self.levels, roi_size, level)
        if all(n <= r for n, r in zip(x.shape[2:], largest)):
            return run(x)
        window = copy(self.window)
        # MONAI would pad a grid that is smaller than the window, so the window is cut to the grid. A weight map that
        # was made for the whole window then no longer fits.
        window.roi_size = tuple(min(n, r) for n, r in zip(x.shape[2:], largest))
        if window.roi_size != roi_size:
            window.roi_weight_map = None
        logger.debug(f"larger than the window: sliding window of {format_size(window.roi_size)} voxels")
        return window(x, run)
