"""Batches of a training on random acquisitions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.data.utils import pad_list_data_collate

from ..data.batches import flatten_patches
from ..levels import ResolutionLevels
from ..transforms.acquisition import RandSimulateAcquisitiond

__all__ = ["CollateAcquisitions"]


class CollateAcquisitions:
    """Makes of the cases of a batch a pyramid, or scans of one random acquisition at one level.

    The members of a batch have to enter the network at one level: so they share what is drawn, the noise apart. The
    draws come from torch's own generator, which processes and workers seed.

    Args:
        levels: the resolution levels of the task; their rule says which level an acquisition enters.
        acquire: draws acquisitions and applies them to a case's image; its label stays as fine as it is.
        to_level: makes the network's input of an acquired case whose ``level`` is set, such as a scaling and
            :py:class:`rare_unet_networks.transforms.ResampleToLeveld`.
        pyramid: makes a case's pyramid.
        prob: probability of a batch of acquired scans.
        finer_prob: probability that they enter one level finer than the rule says, as far as there is one.
        coarser_prob: likewise, one level coarser.
        keys: what is kept of an acquired case.
    """

    def __init__(
        self,
        levels: ResolutionLevels,
        acquire: RandSimulateAcquisitiond,
        to_level: Callable[[dict], dict],
        pyramid: Callable[[dict], dict],
        prob: float = 0.5,
        finer_prob: float = 0.1,
        coarser_prob: float = 0.15,
        keys: Sequence[str] = ("image", "label"),
    ) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f"prob must be 0 to 1, got {prob}.")
        if finer_prob < 0 or coarser_prob < 0 or finer_prob + coarser_prob > 1:
            raise ValueError(
                f"finer_prob and coarser_prob must be 0 or more and at most 1 together, "
                f"got {finer_prob} and {coarser_prob}."
            )
        self.levels = levels
        self.acquire = acquire
        self.to_level = to_level
        self.pyramid = pyramid
        self.prob = prob
        self.finer_prob = finer_prob
        self.coarser_prob = coarser_prob
        self.keys = tuple(keys)

    def __call__(self, cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """
        Args:
            cases: dictionaries with an image, shape (C, *spatial_size), and its label; or lists of them, the patches
                of a case.

        Returns:
            the batch; smaller members are padded with zeros at their ends.
        """
        cases = flatten_patches(cases)
        acquired, other_level = torch.rand(2).tolist()
        if acquired >= self.prob:
            return pad_list_data_collate([self.pyramid(dict(case)) for case in cases], method="end")
        self.acquire.set_random_state(seed=int(torch.randint(2**31 - 1, ())))
        acquisition = self.acquire.randomize(self.levels.spatial_dims)
        level = self.levels.level_of_spacing(acquisition.spacing)
        if other_level < self.finer_prob:
            level = max(level - 1, 0)
        elif other_level < self.finer_prob + self.coarser_prob:
            level = min(level + 1, self.levels.num_levels - 1)
        batch = []
        for case in cases:
            case = self.acquire({**{key: case[key] for key in self.keys}, "acquisition": acquisition})
            del case["acquisition"]
            batch.append(self.to_level({**case, "level": level}))
        return pad_list_data_collate(batch, method="end")
