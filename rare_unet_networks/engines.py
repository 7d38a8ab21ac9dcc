"""What MONAI's engines lack: a pyramid as a batch, and evaluation that survives a case that fails."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.data import CacheDataset, Dataset
from monai.data.utils import pad_list_data_collate
from monai.engines import PrepareBatch, SupervisedEvaluator

from .command_line import innermost_reason
from .datalists import FAILURE, at_levels
from .processes import gathered, rank
from .resampling import plain

__all__ = [
    "GuardedDataset",
    "GuardedEvaluator",
    "LevelsDataset",
    "PreparePyramidBatch",
    "collate_patches",
    "exit_status",
]

logger = logging.getLogger(__name__)


class LevelsDataset(CacheDataset):
    """``monai.data.CacheDataset`` of every item at every level, see :py:func:`rare_unet_networks.at_levels`.

    Programs that bring their own items, such as MONAI Label, replace ``data`` in a config and know of no levels.

    Args:
        data: items, dictionaries with ``image``.
        levels: levels that each is seen at.
        args: further arguments as in MONAI.
        kwargs: likewise.
    """

    def __init__(self, data: Sequence[dict], levels: Sequence[int], *args: Any, **kwargs: Any) -> None:
        super().__init__(at_levels(data, levels), *args, **kwargs)


class GuardedDataset(Dataset):
    """``monai.data.Dataset`` whose items that cannot be read or transformed become a failure instead of an exception.

    Args:
        data: items, dictionaries.
        transform: applied to an item when it is asked for.
        name_key: entry that names the file of an item.
    """

    def __init__(self, data: Sequence[dict], transform: Callable | None = None, name_key: Hashable = "image") -> None:
        super().__init__(data, transform)
        self.name_key = name_key

    def __getitem__(self, index: int) -> dict:
        item = self.data[index]
        if FAILURE in item:
            return self._failure(item, item[FAILURE])
        try:
            return super().__getitem__(index)
        except Exception as error:  # whatever a reader or a transform raises belongs to this one case
            return self._failure(item, innermost_reason(error))

    def _failure(self, item: dict, reason: str) -> dict:
        return {FAILURE: reason, self.name_key: self._name(item), "case": str(item.get("case", ""))}

    def _name(self, item: dict) -> str:
        """The file of an item; of one with a file per modality their folder and the case."""
        path = item[self.name_key]
        if isinstance(path, Mapping):
            return str(Path(next(iter(path.values()))).parent / str(item.get("case", "")))
        return str(path)


class GuardedEvaluator(SupervisedEvaluator):
    """``monai.engines.SupervisedEvaluator`` that goes on after a case failed, for batches of one case.

    ``failures`` lists (file, reason). Arguments as in MONAI; the loader's dataset should be a ``GuardedDataset``. With
    an empty loader, which MONAI's runs pass over, its handlers are called all the same: where several processes share
    the cases out, those that got some wait in their handlers for what the others found.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.failures: list[tuple[str, str]] = []
        super().__init__(*args, **kwargs)

    def run(self, global_epoch: int = 1) -> None:
        if self.state.epoch_length == 0:
            for event in (Events.STARTED, Events.EPOCH_STARTED, Events.EPOCH_COMPLETED, Events.COMPLETED):
                self.fire_event(event)
        else:
            super().run(global_epoch)

    def _iteration(self, engine: SupervisedEvaluator, batchdata: dict[str, Any]) -> Any:
        engine.state.output = []
        name = self._name(batchdata)
        if FAILURE in batchdata:
            self._fail(name, batchdata[FAILURE][0])
            return []
        try:
            return super()._iteration(engine, batchdata)
        except Exception as error:  # as above
            self._fail(name, innermost_reason(error))
            return []

    def _fail(self, name: str, reason: str) -> None:
        reason = reason.removeprefix(f"{name}: ")  # checks name the file themselves
        self.failures.append((name, reason))
        logger.error(f"{name}: {reason}")

    @staticmethod
    def _name(batchdata: dict[str, Any]) -> str:
        image = batchdata["image"]
        return str(image.meta["filename_or_obj"][0] if isinstance(image, torch.Tensor) else image[0])


def exit_status(evaluator: GuardedEvaluator) -> None:
    """Logs how many cases went through, and ends the program with status 1 if any did not: for a config's ``finalize``.

    Cases of all processes count, and all of them end alike.

    Raises:
        SystemExit: when a case failed.
    """
    parts = gathered((evaluator.state.epoch_length or 0, evaluator.failures))
    total, failures = sum(n for n, _ in parts), [failure for _, part in parts for failure in part]
    if failures:
        if rank() == 0:
            logger.error(f"{len(failures)} of {total} failed: {', '.join(dict.fromkeys(name for name, _ in failures))}")
        sys.exit(1)
    logger.info(f"{total} of {total} done" if total else "nothing was left to do")


class PreparePyramidBatch(PrepareBatch):
    """Gathers ``image_0`` … and ``label_0`` … of :py:class:`MultiResolutionPyramidd` into the two lists a step takes.

    A step of all levels costs most of its time at level 0, whose decoder's deep stages the coarse levels train as well:
    leaving the finest levels out of some steps trains the coarse ones more for the same time.

    Args:
        levels: levels of the pyramid, ascending.
        start_probs: probabilities that a step runs all of them, leaves out the first, the first two, …; all always by
            default.
        seed: of that draw; the processes of a distributed training must share it, so that they run the same levels.

    Raises:
        ValueError: when there are more probabilities than levels, or they do not add up to 1.
    """

    def __init__(self, levels: Sequence[int], start_probs: Sequence[float] = (1.0,), seed: int = 0) -> None:
        if len(start_probs) > len(levels) or any(p < 0 for p in start_probs) or abs(sum(start_probs) - 1) > 1e-6:
            raise ValueError(
                f"start_probs must be at most {len(levels)} probabilities that add up to 1, got {tuple(start_probs)}."
            )
        self.levels = list(levels)
        self.start_probs = torch.tensor(start_probs, dtype=torch.float64)
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(
        self,
        batchdata: dict[str, torch.Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[list[torch.Tensor], list[torch.Tensor], tuple, dict[str, Any]]:
        """
        Returns:
            images and labels, one of each per level, as plain tensors: a training step needs no metadata; where level 0
            is not active, its label comes last. And what else the network is called with: its active ``levels``.
        """

        def gather(name: str, levels: Sequence[int]) -> list[torch.Tensor]:
            tensors = [plain(batchdata[f"{name}_{level}"]) for level in levels]
            return [t.to(device, non_blocking=non_blocking, **kwargs) for t in tensors]

        start = torch.multinomial(self.start_probs, 1, generator=self.generator)
        active = self.levels[int(start) :]
        labelled = active if 0 in active else [*active, 0]
        return gather("image", active), gather("label", labelled), (), {"levels": active}


def collate_patches(items: Sequence[Any]) -> Any:
    """``monai.data.utils.pad_list_data_collate`` for transforms that give a list of patches: padded to equal size.

    Args:
        items: a dictionary each, or a list of them, as of ``RandCropByPosNegLabeld``, whose patches are smaller than
            asked for where the scan is.

    Returns:
        the batch, every patch a member; smaller ones are padded with zeros at their ends.
    """
    patches = [patch for item in items for patch in (item if isinstance(item, list) else [item])]
    return pad_list_data_collate(patches, method="end")
