"""Z-scores of a patch by the statistics of the scan it was cut from, as inference takes them over a whole scan.

``NormalizeIntensityd(nonzero=True)`` of a patch around a tumour takes the mean of the tumour, which then looks unlike
what inference, on whole scans, makes of it. And the statistics of a coarse scan are not those of the fine one: blocks
that the edge of the head crosses are dark, and a larger share the coarser the scan.
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

__all__ = ["ForegroundStatisticsd", "StandardizeForegroundd"]


class ForegroundStatisticsd(MapTransform):
    """Notes mean and standard deviation of the nonzero voxels of a scan, per channel, at several resolutions.

    Args:
        keys: images, shape (C, *spatial_size), zero outside the head.
        num_levels: resolutions 1, 1/2, 1/4, …; a coarse scan is made of block means, the scan padded with zeros to
            whole blocks.
        postfix: the statistics of ``image`` are kept as ``image_statistics``, shape (num_levels, 2, C): means, then
            standard deviations. Those of an empty channel are 0 and 1.
    """

    def __init__(self, keys: KeysCollection, num_levels: int, postfix: str = "statistics") -> None:
        super().__init__(keys)
        self.num_levels = num_levels
        self.postfix = postfix

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.keys:
            scan, levels = as_plain_tensor(d[key]), range(self.num_levels)
            scans = [coarsen(scan, level_scale(level), align="start") for level in levels]
            d[f"{key}_{self.postfix}"] = torch.stack([self._statistics(scan) for scan in scans])
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
    """(voxel - mean) / standard deviation of all nonzero voxels, by what :py:class:`ForegroundStatisticsd` noted.

    On an uncut scan it gives what ``NormalizeIntensityd(nonzero=True, channel_wise=True)`` gives.

    Args:
        keys: images, shape (C, *spatial_size).
        statistics_key: the statistics.
        levels: level of each image; by default all have the one that ``data[level_key]`` names.
        level_key: where :py:class:`rare_unet_networks.RandResolutionLeveld` writes it.

    Raises:
        ValueError: when there are not as many levels as keys.
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
            x = as_plain_tensor(d[key])
            mean, std = (s.reshape(-1, *[1] * (x.ndim - 1)) for s in d[self.statistics_key][level])
            d[key] = MetaTensor(torch.where(x != 0, (x - mean) / std, x)).copy_meta_from(d[key])
        return d
