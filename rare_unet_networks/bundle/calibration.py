"""Calibration of the heads of trained weights: ``run calibrating``.

Half of the training loss is soft Dice without background. It rewards foreground where the network is uncertain, so
segmentations are too large, the more so the coarser the scan. Calibration corrects this by one number per head, which
is added to the background's logit, in the bias of the head's last convolution. Nothing else is trained.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean

import torch
from monai.transforms import Orientation, ResampleToMatch
from nibabel.orientations import aff2axcodes
from torch import nn

from ..data.datalists import FAILURE
from ..levels import ResolutionLevels
from ..metrics.multi_scale import dice_per_class
from ..metrics.summary import mean_of_defined
from ..networks.weights import load_weights
from ..utils.files import replaced_as_a_whole
from ..utils.labels import most_likely

__all__ = ["calibrate"]

logger = logging.getLogger(__name__)
CRITERIA = ("dice", "volume")
OFFSETS = tuple(round(0.1 * i, 1) for i in range(16))  # 0, 0.1, … 1.5


def calibrate(
    network: nn.Module,
    dataset: Iterable[Mapping],
    inferer: Callable,
    checkpoint: str | Path,
    output: str | Path,
    offsets: Sequence[float] = OFFSETS,
    criterion: str = "dice",
    levels: ResolutionLevels | None = None,
) -> None:
    """Adds the best offset to the background bias of each head that the inferer uses; saves the weights as float16.

    By ``"dice"``, the best offset has the highest class mean Dice on the dataset, measured on the grid of the head. By
    ``"volume"``, the mean volume of the whole structure on the level 0 grid differs least from the labels'; heads of
    coarse grids are still chosen by Dice. A head for several scales gets the offset with the best mean over them.
    From the inferer's ``fine_from`` on, heads of coarse grids stay as they are: their predictions are not used.

    Args:
        network: a :py:class:`rare_unet_networks.networks.RAREUNet`; it gets the calibrated weights.
        dataset: scans at every level, as ``run evaluating`` loads them, with ``image``, ``label``, ``label_fine``,
            ``level`` and ``case``; or simulated acquisitions without ``level``.
        inferer: inferer that returns the logits of a single path; mean probabilities cannot be shifted by a bias.
        checkpoint: weights, in a form that :py:func:`rare_unet_networks.networks.load_weights` accepts.
        output: file of the calibrated weights.
        offsets: offsets to try; with none the weights are only saved as float16.
        criterion: ``"dice"`` or ``"volume"``.
        levels: resolution levels that place scans without ``level``.

    Raises:
        ValueError: if the criterion is unknown, the weights cannot be used, a scan of the dataset cannot be read, or
            all labels of a level are empty.
    """
    if criterion not in CRITERIA:
        raise ValueError(f"criterion must be one of {CRITERIA}, got {criterion!r}.")
    load_weights(checkpoint, network, map_location="cpu")
    network.eval()
    state = network.state_dict()
    scores = score_offsets(network, dataset, inferer, offsets, criterion, levels) if offsets else {}
    for name, by_offset in sorted(scores.items()):
        best = max(by_offset, key=by_offset.get)
        shift_background(state, name, best)
        before = f"score {by_offset[0.0]:.4f} -> " if 0.0 in by_offset else "score "
        logger.info(f"{name}: {best:+g}, {before}{by_offset[best]:.4f}")
    # Written to an open file, because PyTorch stores the name of a path in the content.
    with replaced_as_a_whole(Path(output)) as temporary, open(temporary, "wb") as file:
        torch.save({key: value.half().cpu() for key, value in state.items()}, file)
    logger.info(f"calibrated weights: {output}")


def bias_of(network: nn.Module, grid: str, level: int) -> str:
    """Name of the bias of the head that segments scans of a level on a grid, ``"scan"`` or ``"fine"``."""
    if grid == "scan" or network.num_levels == 1 or level == 0:
        return f"heads.{min(level, network.num_levels - 1)}.conv.bias"
    return f"full_heads.{level - 1}.conv_block.1.conv.bias"


def shift_background(state: dict[str, torch.Tensor], name: str, offset: float) -> None:
    """Adds an offset to the background entries of a head's bias; a sub-pixel head has one per class and fine voxel."""
    num_classes = len(state["heads.0.conv.bias"])
    state[name][: len(state[name]) // num_classes] += offset


@torch.no_grad()
def score_offsets(
    network: nn.Module,
    dataset: Iterable[Mapping],
    inferer: Callable,
    offsets: Sequence[float] = OFFSETS,
    criterion: str = "dice",
    levels: ResolutionLevels | None = None,
) -> dict[str, dict[float, float]]:
    """Computes the score of each bias and offset, averaged over the scales of the bias; more is better.

    Raises:
        ValueError: if a scan cannot be read, or all labels of a level are empty.
    """
    device = next(network.parameters()).device
    measured: dict[tuple[str, int], dict[float, list]] = {}  # by grid and level, then offset: one value a scan
    for item in dataset:
        if FAILURE in item:
            raise ValueError(f"every scan must be readable, {item['image']} is not: {item[FAILURE]}")
        level = int(item["level"]) if "level" in item else levels.route(item["image"][None]).level
        for grid, logits, label in _pairs(item, inferer(item["image"][None].to(device), network)):
            by_offset = measured.setdefault((grid, level), defaultdict(list))
            for offset, value in _measures(logits, label, offsets, _criterion_of(grid, level, criterion)):
                by_offset[offset].append(value)
    means: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (grid, level), by_offset in measured.items():
        if level == 0 and grid == ("fine" if criterion == "dice" else "scan") and len(measured) > 1:
            continue  # at level 0 both grids have the same head
        by = _criterion_of(grid, level, criterion)
        for offset, scans in by_offset.items():
            mean = _class_mean(scans) if by == "dice" else mean_of_defined(scans)
            if math.isnan(mean):
                raise ValueError(
                    f"level {level}: expected a class in at least one label, all {len(scans)} are empty on the grid "
                    f"{grid!r}; val_levels can leave this level out"
                )
            means[bias_of(network, grid, level)][offset].append(mean if by == "dice" else -abs(mean))
    scores: dict[str, dict[float, float]] = {}
    for name, means_by_offset in means.items():
        scores[name] = {offset: fmean(values) for offset, values in means_by_offset.items()}
    return scores


def _criterion_of(grid: str, level: int, criterion: str) -> str:
    """The coarse label is the majority of each voxel and so loses volume: coarse heads are always scored by Dice."""
    return "dice" if grid == "scan" and level > 0 else criterion


def _measures(
    logits: torch.Tensor, label: torch.Tensor, offsets: Sequence[float], criterion: str
) -> Iterator[tuple[float, list[float] | float]]:
    """Yields each offset with the Dice of each class, or the volume error as a fraction of the label's volume."""
    if criterion == "dice":
        for offset in offsets:
            shifted = logits.clone()
            shifted[0] += offset
            yield offset, dice_per_class(most_likely(shifted, keepdim=True), label, len(shifted))
        return
    margin = logits[1:].amax(dim=0) - logits[0]
    volume = int((label > 0).sum())
    for offset in offsets:
        yield offset, int((margin > offset).sum()) / volume - 1 if volume else math.nan


def _pairs(item: Mapping, prediction: torch.Tensor | Mapping) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    """(grid, logits, label) of a scan for each grid of the prediction, in the order of the image's axes."""
    orient = Orientation("".join(aff2axcodes(item["image"].affine)), labels=None)
    predictions = prediction if isinstance(prediction, Mapping) else {"pred_fine": prediction}
    label = orient(item["label_fine"])
    # Linear: the grid of an acquisition may lie between the label's voxels.
    fine = ResampleToMatch(mode="bilinear")(predictions["pred_fine"][0].cpu(), label)
    pairs = [("fine", fine.as_tensor(), label.as_tensor())]
    if "pred" in predictions:
        pairs.append(("scan", predictions["pred"][0].cpu().as_tensor(), orient(item["label"]).as_tensor()))
    return pairs


def _class_mean(scans: Sequence[Sequence[float]]) -> float:
    """Mean as in the tables of results: over scans for each class, without NaN, then over the classes that are there.

    NaN if no class is in any scan.
    """
    return mean_of_defined([mean_of_defined(values) for values in zip(*scans)])
