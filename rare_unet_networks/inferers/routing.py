"""Inference at the scan's own resolution (Albertsen et al. 2025, section 3.2 "Inference").

Beyond the paper, which resizes every input to one of the training sizes: a scan is placed by its voxel size, only the
axes that are off its level's spacing are resampled, sizes are padded and never cropped, and the answer comes back on
the scan's own grid or, finer than the scan, on that of level 0.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer, sliding_window_inference
from torch.nn import functional as F

from ..levels import ResolutionLevels, Route
from ..utils.geometry import LINEAR, format_size, symmetric_core, symmetric_pad
from ..utils.quality import distance_warning
from ..utils.resampling import as_plain_tensor, copy_meta_like, resample
from .window import window_size

__all__ = ["ResolutionRoutingInferer"]

logger = logging.getLogger(__name__)
OUTPUTS = ("native", "full", "both")
CERTAIN = 20.0  # a logit that leaves the other classes less than 1e-17 of the probability, and fits into float16


def paste_into_background(logits: torch.Tensor, box: Sequence[slice], spatial_size: Sequence[int]) -> torch.Tensor:
    """``logits`` in a larger grid of ``spatial_size`` voxels where ``box`` says; around them background is certain."""
    if tuple(logits.shape[2:]) == tuple(spatial_size):
        return logits
    whole = logits.new_full((*logits.shape[:2], *spatial_size), -CERTAIN)
    whole[:, 0] = CERTAIN
    whole[(..., *box)] = logits
    return whole


class ResolutionRoutingInferer(Inferer):
    """Sends a scan through the gateway of its resolution and returns logits on the scan's or on the level 0 grid.

    1. The level is chosen by :py:meth:`rare_unet_networks.levels.ResolutionLevels.route` and logged with its reason.
    2. Axes more than the tolerance (10 %) off the level's spacing are resampled linearly, smoothed first where they
       get coarser; 1×1×4 mm enters level 0 with its thick axis resampled, 1.5 mm enters level 1.
    3. With ``crop_foreground`` the box of what is not background is cut out. The grid is padded to what the level can
       process, and the one path is run: ``network(x, level=level)``.
    4. The logits are cut to the grid before padding; outside the box the answer is background. With
       ``output="native"`` they come back linearly to the input's grid, with ``output="full"`` they stay on the grid of
       level 0, over the same extent, with its affine. ``output="both"`` gives both for one forward pass.

    With one level it is a U-Net fed the scan resampled to full resolution.

    Args:
        levels: the resolution levels of the task.
        roi_size: largest grid, in voxels of level 0, that goes through the network at once; a larger one goes through
            MONAI's sliding window within its level. A window covers as many mm at each level, and so has fewer voxels
            at coarser ones. A size that level 0 can process.
        sw_batch_size: windows computed together.
        overlap: overlap of the windows, 0 to below 1.
        cval: value the padding is filled with; 0 is the minimum after scaling to [0, 1], and what is outside the head
            after ``NormalizeIntensityd(nonzero=True)``.
        output: ``"native"``, ``"full"`` or ``"both"``; for the last two the network must answer on the level 0 grid.
        crop_foreground: whether only the box of voxels that differ from ``cval`` in any channel is computed: of a
            scan whose background was set to one value, such as a brain without its skull.

    Raises:
        ValueError: when ``roi_size`` does not fit ``levels`` or ``output`` is unknown.

    Example::

        levels = ResolutionLevels(num_levels=4, spatial_size=(32, 64, 32), spacing=(1.0, 1.0, 1.0))
        inferer = ResolutionRoutingInferer(levels)
        net = RAREUNet(spatial_dims=3, in_channels=1, out_channels=3).eval()
        inferer(torch.rand(1, 1, 18, 26, 17), net).shape  # (1, 3, 18, 26, 17), by size: level 1
        scan = MetaTensor(torch.rand(1, 1, 40, 50, 12), affine=torch.diag(torch.tensor([1.0, 1.0, 4.0, 1.0])))
        inferer(scan, net).shape  # (1, 3, 40, 50, 12), level 0, resampled to 40×50×48, padded to 48×64×48

        net = RAREUNet(spatial_dims=3, in_channels=1, out_channels=3, fine_convs=1).eval()
        inferer = ResolutionRoutingInferer(levels, output="full")
        inferer(torch.rand(1, 1, 18, 26, 17), net).shape  # (1, 3, 36, 52, 34), level 1, answered at 1 mm
    """

    def __init__(
        self,
        levels: ResolutionLevels,
        roi_size: Sequence[int] | None = None,
        sw_batch_size: int = 1,
        overlap: float = 0.25,
        cval: float = 0.0,
        output: str = "native",
        crop_foreground: bool = False,
    ) -> None:
        super().__init__()
        if roi_size is not None:
            fitting = levels.padded_size(roi_size, level=0)
            if fitting != tuple(roi_size):
                raise ValueError(f"roi_size must be a size level 0 can process, as {fitting}, got {tuple(roi_size)}.")
        if output not in OUTPUTS:
            raise ValueError(f"output must be one of {OUTPUTS}, got {output!r}.")
        self.levels = levels
        self.roi_size = roi_size
        self.sw_batch_size = sw_batch_size
        self.overlap = overlap
        self.cval = cval
        self.output = output
        self.crop_foreground = crop_foreground

    def route(self, inputs: torch.Tensor) -> Route:
        """The way the inferer sends ``inputs``, shape (B, C, *spatial_size), without running anything."""
        return self.levels.route(inputs)

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """
        Args:
            inputs: shape (B, C, *spatial_size); a ``MetaTensor`` brings its spacing (mm) by its affine.
            network: called as ``network(x, *args, level=level, **kwargs)``, must keep the grid of ``x``; above level 0
                with ``output="full"`` or ``output="both"`` where that is asked for.
            args: further positional arguments of the network.
            kwargs: further keyword arguments of the network.

        Returns:
            logits, shape (B, classes, *spatial_size) on the grid asked for, a ``MetaTensor`` with the metadata of
            ``inputs`` and the affine of that grid if ``inputs`` is one. For both, a dictionary: ``pred`` (native) and
            ``pred_fine``; of a scan that had to be resampled ``pred_fine`` alone, from which the native answer is to be
            read (:py:class:`rare_unet_networks.transforms.ResampleToBothGridsd`).

        Raises:
            ValueError: when the input fits no level, see :py:meth:`rare_unet_networks.levels.ResolutionLevels.route`.
        """
        route = self.route(inputs)
        logger.info(f"{self._name(inputs)}{route}")
        self._warn_of_distance(inputs, route)
        x = resample(as_plain_tensor(inputs), route.resampled_size)

        def asked(window: torch.Tensor, **options: Any) -> Any:
            return network(window, *args, **options, **kwargs)

        found = self._answers(x, self._box(x), route.level, self.output, asked)
        if self.output == "native":
            return self._on_scan(found["pred"], route, inputs)
        full = copy_meta_like(found["pred_fine"], inputs)
        if self.output == "full":
            return full
        if route.resampled_size != route.spatial_size:
            return {"pred_fine": full}
        return {"pred_fine": full, "pred": self._on_scan(found["pred"], route, inputs)}

    def _answers(
        self, x: torch.Tensor, box: Sequence[slice], level: int, output: str, network: Callable[..., Any]
    ) -> dict[str, torch.Tensor]:
        """One level's logits for ``x``, shape (B, C, *spatial_size): ``pred`` on its grid, ``pred_fine`` on level 0's.

        Only those that ``output`` asks for, computed in ``box``.
        """
        size = [s.stop - s.start for s in box]
        padded_size = self.levels.padded_size(size, level)
        padded = symmetric_pad(x[(..., *box)], padded_size, self.cval)

        def predict(window: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
            wanted = {"output": output} if output != "native" and level > 0 else {}
            answer = network(window, level=level, **wanted)
            if output == "both" and level > 0:
                (native,), _, (full,) = answer
                return {"pred": native, "pred_fine": full}
            return answer

        def uncut(logits: torch.Tensor, scale: int) -> torch.Tensor:
            """On the whole grid of the level, or on one ``scale`` times as fine: no padding, background around."""
            logits = logits[(..., *symmetric_core(size, padded_size, scale))]
            inside = [slice(s.start * scale, s.stop * scale) for s in box]
            return paste_into_background(logits, inside, [n * scale for n in x.shape[2:]])

        logits = self._slide(padded, predict, level)
        wanted = {"native": ["pred"], "full": ["pred_fine"], "both": ["pred", "pred_fine"]}[output]
        if not isinstance(logits, dict):
            scale = 2**level if output == "full" else 1
            return dict.fromkeys(wanted, uncut(logits, scale))  # at level 0 both grids are one
        return {key: uncut(logits[key], 2**level if key == "pred_fine" else 1) for key in wanted}

    def _box(self, x: torch.Tensor) -> list[slice]:
        """Of what is to be computed: all of it, or the box of the foreground of all members."""
        whole = [slice(0, n) for n in x.shape[2:]]
        found = (x != self.cval).flatten(0, 1).any(dim=0).nonzero() if self.crop_foreground else ()
        if not len(found):
            return whole
        box = [slice(int(a), int(b) + 1) for a, b in zip(found.amin(dim=0), found.amax(dim=0))]
        logger.info(
            f"foreground in {format_size([s.stop - s.start for s in box])} of {format_size(x.shape[2:])} voxels"
        )
        return box

    def _on_scan(self, logits: torch.Tensor, route: Route, inputs: torch.Tensor) -> torch.Tensor:
        if route.resampled_size != route.spatial_size:
            logits = F.interpolate(logits.float(), route.spatial_size, mode=LINEAR[self.levels.spatial_dims])
        return copy_meta_like(logits, inputs)

    def _warn_of_distance(self, inputs: torch.Tensor, route: Route) -> None:
        warning = "" if route.spacing is None else distance_warning(self.levels, route.spacing)
        if warning:
            logger.warning(f"{self._name(inputs)}{warning}")

    def _slide(self, x: torch.Tensor, predict: Callable[[torch.Tensor], Any], level: int) -> Any:
        if self.roi_size is None:
            return predict(x)
        roi_size = [min(n, r) for n, r in zip(x.shape[2:], window_size(self.levels, self.roi_size, level))]
        if roi_size == list(x.shape[2:]):
            return predict(x)
        logger.info(f"larger than roi_size: sliding window of {format_size(roi_size)} voxels, overlap {self.overlap:g}")
        return sliding_window_inference(x, roi_size, self.sw_batch_size, predict, overlap=self.overlap, mode="gaussian")

    @staticmethod
    def _name(inputs: torch.Tensor) -> str:
        name = inputs.meta.get("filename_or_obj") if isinstance(inputs, MetaTensor) else None
        name = name[0] if isinstance(name, (list, tuple)) and len(name) == 1 else name
        return f"{name}: " if isinstance(name, str) and name else ""
