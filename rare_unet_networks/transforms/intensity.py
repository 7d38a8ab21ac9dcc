"""Z-scores of a patch by the mean and standard deviation of the whole scan, as in inference.

``NormalizeIntensityd(nonzero=True)`` would normalise a patch around a tumour by the mean of the tumour. Inference
normalises whole scans, so the tumour would look different there. Statistics also depend on the resolution: blocks at
the edge of the head are dark, and the coarser the scan, the larger their share.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from ..levels import level_scale
from ..utils.coarsening import coarsen
from ..utils.resampling import as_plain_tensor
from .level_grids import LABEL_LEVEL

__all__ = ["ForegroundStatisticsd", "StandardizeForegroundd"]


class ForegroundStatisticsd(MapTransform):
    """Computes mean and standard deviation of the nonzero voxels of a scan, per channel, at several resolutions.

    Args:
        keys: images, shape (C, *spatial_size), zero outside the head.
        num_levels: number of resolutions 1, 1/2, 1/4, …. A coarse scan consists of block means; the scan is padded with
            zeros to whole blocks. A scan with the voxels of a coarser level (``label_level``, as
            :py:class:`rare_unet_networks.transforms.ResampleToLabelLeveld` notes it) has its own statistics at the
            finer ones.
        postfix: the statistics of ``image`` are stored as ``image_statistics``, shape (num_levels, 2, C): means, then
            standard deviations. Those of an empty channel are 0 and 1.
    """

    def __init__(self, keys: KeysCollection, num_levels: int, postfix: str = "statistics") -> None:
        super().__init__(keys)
        self.num_levels = num_levels
        self.postfix = postfix

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.keys:
            scan = as_plain_tensor(d[key])
            first = int(d.get(LABEL_LEVEL, 0))
            statistics = []
            for level in range(self.num_levels):
                coarse = coarsen(scan, level_scale(max(level - first, 0)), align="start")
                statistics.append(self._statistics(coarse))
            d[f"{key}_{self.postfix}"] = torch.stack(statistics)
        return d

    @staticmethod
    def _statistics(scan: torch.Tensor) -> torch.Tensor:
        statistics = torch.tensor([[0.0], [1.0]], device=scan.device).repeat(1, len(scan))
        for i, channel in enumerate(scan):
            foreground = channel[channel != 0]
            if len(foreground):
                statistics[:, i] = torch.stack([foreground.mean(), foreground.std(correction=0) or torch.tensor(1.0)])
        return statistics


class StandardizeForegroundd(MapTransform):
    """Computes z-scores of all nonzero voxels, by the statistics of :py:class:`ForegroundStatisticsd`.

    On a whole scan the result is that of ``NormalizeIntensityd(nonzero=True, channel_wise=True)``.

    Images of levels that a coarse label does not train (``label_level``) may be absent.

    Args:
        keys: images, shape (C, *spatial_size).
        statistics_key: key of the statistics.
        levels: level of each image; by default ``data[level_key]`` for all.
        level_key: key of the level, as ``rare_unet_networks.baselines.RandResolutionLeveld`` writes it.

    Raises:
        ValueError: if the number of levels is not that of the keys.
    """

    def __init__(
        self,
        keys: KeysCollection,
        statistics_key: str = "image_statistics",
        levels: Sequence[int] | None = None,
        level_key: str = "level",
    ) -> None:
        super().__init__(keys)
        if levels is not None and len(levels) != len(self.keys):
            raise ValueError(f"levels must be one per key, {len(self.keys)}, got {list(levels)}.")
        self.statistics_key = statistics_key
        self.levels = levels
        self.level_key = level_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        levels = self.levels if self.levels is not None else [d[self.level_key]] * len(self.keys)
        for key, level in zip(self.keys, levels):
            if key not in d and level < d.get(LABEL_LEVEL, 0):
                continue
            x = as_plain_tensor(d[key])
            mean, std = (s.reshape(-1, *[1] * (x.ndim - 1)) for s in d[self.statistics_key][level])
            d[key] = MetaTensor(torch.where(x != 0, (x - mean) / std, x)).copy_meta_from(d[key])
        return d
