"""Calibration of the heads of trained weights: ``run calibrating``.

Half of the training loss is soft Dice without background. It rewards foreground where the network is uncertain, so
segmentations are too large, the more so the coarser the scan. Calibration corrects this by one number per head, which
is added to the background's logit, in the bias of the head's last convolution. Nothing else is trained.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

import torch
from monai.transforms import Orientation, ResampleToMatch
from nibabel.orientations import aff2axcodes
from torch import nn

from ..data.datalists import FAILURE
from ..metrics.multi_scale import dice_per_class
from ..metrics.summary import mean_of_defined
from ..networks.weights import load_weights
from ..utils.files import replaced_as_a_whole

__all__ = ["calibrate"]

logger = logging.getLogger(__name__)
OFFSETS = tuple(round(0.1 * i, 1) for i in range(16))  # 0, 0.1, … 1.5


def calibrate(
    network: nn.Module,
    dataset: Iterable[Mapping],
    inferer: Callable,
    checkpoint: str | Path,
    output: str | Path,
    offsets: Sequence[float] = OFFSETS,
) -> None:
    """Adds the best offset to the background bias of every head, and saves the weights as float16.

    The best offset has the highest class mean Dice on the dataset, measured on the grid of the head. A head for several
    scales gets the offset with the best mean over them.

    Args:
        network: a :py:class:`rare_unet_networks.networks.RAREUNet`; it gets the calibrated weights.
        dataset: scans at every level, as ``run evaluating`` loads them, with ``image``, ``label``, ``label_fine``,
            ``level`` and ``case``.
        inferer: inferer that returns the logits of a single path; mean probabilities cannot be shifted by a bias.
        checkpoint: weights, in a form that :py:func:`rare_unet_networks.networks.load_weights` accepts.
        output: file of the calibrated weights.
        offsets: offsets to try; with none the weights are only saved as float16.

    Raises:
        ValueError: if the weights cannot be used, a scan of the dataset cannot be read, or all labels of a level
            are empty.
    """
    load_weights(checkpoint, network, map_location="cpu")
    network.eval()
    state = network.state_dict()
    dice_by_bias = score_offsets(network, dataset, inferer, offsets) if offsets else {}
    for name, by_offset in sorted(dice_by_bias.items()):
        best = max(by_offset, key=by_offset.get)
        shift_background(state, name, best)
        before = f"Dice {by_offset[0.0]:.4f} -> " if 0.0 in by_offset else "Dice "
        logger.info(f"{name}: {best:+.1f}, {before}{by_offset[best]:.4f}")
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
    network: nn.Module, dataset: Iterable[Mapping], inferer: Callable, offsets: Sequence[float] = OFFSETS
) -> dict[str, dict[float, float]]:
    """Computes the class mean Dice by bias and offset, averaged over the scales of the bias.

    Raises:
        ValueError: if a scan cannot be read, or all labels of a level are empty.
    """
    device = next(network.parameters()).device
    dice: dict[tuple[str, int], dict[float, list[list[float]]]] = {}  # by grid and level, then offset: scans, classes
    for item in dataset:
        if FAILURE in item:
            raise ValueError(f"every scan must be readable, {item['image']} is not: {item[FAILURE]}")
        for grid, logits, label in _pairs(item, inferer(item["image"][None].to(device), network)):
            by_offset = dice.setdefault((grid, int(item["level"])), defaultdict(list))
            for offset in offsets:
                shifted = logits.clone()
                shifted[0] += offset
                by_offset[offset].append(dice_per_class(shifted.argmax(dim=0, keepdim=True), label, len(shifted)))
    means: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (grid, level), by_offset in dice.items():
        if grid == "fine" and level == 0 and ("scan", 0) in dice:
            continue  # at level 0 both grids have the same logits
        for offset, scans in by_offset.items():
            mean = _class_mean(scans)
            if math.isnan(mean):
                raise ValueError(
                    f"level {level}: expected a class in at least one label, all {len(scans)} are empty on the grid "
                    f"{grid!r}; val_levels can leave this level out"
                )
            means[bias_of(network, grid, level)][offset].append(mean)
    scores: dict[str, dict[float, float]] = {}
    for name, means_by_offset in means.items():
        scores[name] = {offset: fmean(values) for offset, values in means_by_offset.items()}
    return scores


def _pairs(item: Mapping, prediction: torch.Tensor | Mapping) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    """(grid, logits, label) of a scan for each grid of the prediction, in the order of the image's axes."""
    orient = Orientation("".join(aff2axcodes(item["image"].affine)), labels=None)
    predictions = prediction if isinstance(prediction, Mapping) else {"pred_fine": prediction}
    label = orient(item["label_fine"])
    fine = ResampleToMatch(mode="nearest")(predictions["pred_fine"][0].cpu(), label)
    pairs = [("fine", fine.as_tensor(), label.as_tensor())]
    if "pred" in predictions:
        pairs.append(("scan", predictions["pred"][0].cpu().as_tensor(), orient(item["label"]).as_tensor()))
    return pairs


def _class_mean(scans: Sequence[Sequence[float]]) -> float:
    """Mean as in the tables of results: over scans for each class, without NaN, then over the classes that are there.

    NaN if no class is in any scan.
    """
    return mean_of_defined([mean_of_defined(values) for values in zip(*scans)])
