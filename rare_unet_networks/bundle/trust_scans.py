"""Predicts labelled scans, clean and corrupted, and fits the model of trust to them: ``run calibrating``."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Orientationd, ResampleToMatch, ScaleIntensity

from ..data.acquisitions import Acquisition, read_acquisitions
from ..inferers.base import RoutingInferer
from ..inferers.trust import TrustInferer
from ..metrics.multi_scale import dice_per_class
from ..transforms.acquisition import simulate_acquisition
from ..transforms.corruption import CORRUPTIONS, corrupted
from ..utils.files import replaced_as_a_whole, sha256
from ..utils.labels import most_likely
from .trust_fit import NUM_FOLDS, fit_trust

__all__ = ["SPACINGS", "find_trust", "predicted_scan", "trust_tasks"]

logger = logging.getLogger(__name__)
# Every level has some, and each kind of slices.
SPACINGS = (1, 1.4, 2, 3, 4, 5, 6, 8, [1, 1, 3], [1, 1, 5], [5, 1, 1], [1, 1, 7], [1, 1, 10], [2, 2, 5])

load_labelled = Compose(
    [
        LoadImaged(["image", "label"]),
        EnsureChannelFirstd(["image", "label"]),
        Orientationd(["image", "label"], axcodes="RAS", labels=None),
    ]
)


def trust_tasks(
    cases: Sequence[str], acquisitions: Sequence[Acquisition], corruptions: int
) -> list[tuple[str, Acquisition, str]]:
    """Case, acquisition and kind of each scan: clean, and some corruptions drawn for each case and acquisition.

    The order is random, so that any beginning of the list has all of them about equally often.
    """
    random = np.random.RandomState(0)
    tasks = []
    for case in cases:
        for acquisition in acquisitions:
            kinds = random.choice(CORRUPTIONS, corruptions, replace=False).tolist()
            tasks += [(case, acquisition, kind) for kind in ("clean", *kinds)]
    return [tasks[i] for i in random.permutation(len(tasks))]


@torch.no_grad()
def predicted_scan(
    volume: Mapping[str, torch.Tensor],
    task: tuple[str, Acquisition, str],
    inferer: RoutingInferer,
    network: torch.nn.Module,
    scaling: Callable,
    num_classes: int,
) -> dict[str, Any]:
    """Acquires a volume, corrupted or not, predicts the scan and compares it with the label.

    Args:
        volume: ``image`` and ``label`` in RAS, shape (1, *spatial_size).
        task: case, acquisition and kind of the scan.
        inferer: a :py:class:`rare_unet_networks.inferers.TrustInferer` that predicts on the grid of level 0.
        network: in evaluation mode.
        scaling: dictionary transform that scales the intensities of ``"image"``.
        num_classes: classes, background included.

    Returns:
        the features of the prediction, with ``dice`` and ``true`` (volume of the label, mm³) by class, ``subject`` and
        ``kind``.
    """
    case, acquisition, kind = task
    random = np.random.RandomState(zlib.crc32(f"{case} {acquisition.spacing_name} {kind}".encode()))
    image = torch.as_tensor(ScaleIntensity()(torch.as_tensor(volume["image"]).float()))
    affine = torch.as_tensor(volume["label"].affine)
    image, label, factor = corrupted(kind, image, torch.as_tensor(volume["label"]).float(), random)
    image, label = (MetaTensor(x.clone(), affine=affine) for x in (image, label))
    scan = simulate_acquisition(image, acquisition)
    header = torch.diag(torch.tensor([factor] * 3 + [1.0], dtype=torch.float64))
    scan.affine, label.affine = header @ scan.affine.double(), header @ label.affine.double()
    prediction = inferer(scaling({"image": scan})["image"][None], network)
    fine = prediction["pred_fine"] if isinstance(prediction, Mapping) else prediction
    # Linear: the grid of an acquisition may lie between the label's voxels.
    match = ResampleToMatch(mode="bilinear", padding_mode="zeros")
    labels = most_likely(torch.as_tensor(match(fine[0].softmax(dim=0).cpu(), label)), keepdim=True)
    truth = label.as_tensor()
    voxel = float(torch.linalg.det(label.affine[:3, :3]).abs())
    return {
        **fine.meta["trust"].features[""],
        "dice": dice_per_class(labels, truth, num_classes),
        "true": [int((truth == index).sum()) * voxel for index in range(1, num_classes)],
        "subject": subject_of(case),
        "kind": kind,
    }


def subject_of(case: str) -> str:
    """Person of a case of the Decathlon's Task04, whose volumes 2k-1 and 2k are of one; the case itself elsewhere."""
    name, _, number = case.rpartition("_")
    return f"{name}_{(int(number) + 1) // 2}" if name == "hippocampus" and number.isdigit() else case


def _rows(
    cases: Sequence[Mapping], tasks: Sequence[tuple[str, Acquisition, str]], predict: Callable
) -> Iterator[dict[str, Any]]:
    files = {item["case"]: item for item in cases}
    volumes: dict[str, Any] = {}
    for number, task in enumerate(tasks, start=1):
        if task[0] not in volumes:
            volumes[task[0]] = load_labelled({key: files[task[0]][key] for key in ("image", "label")})
        yield predict(volumes[task[0]], task)
        if number % 200 == 0:
            logger.info(f"trust: {number} of {len(tasks)} scans")


def find_trust(
    network: torch.nn.Module,
    cases: Sequence[Mapping],
    inferer: TrustInferer,
    class_names: Sequence[str],
    checkpoint: str | Path,
    output_file: str | Path,
    acquisitions: Any = SPACINGS,
    corruptions: int = 2,
) -> None:
    """Fits the model of trust to weights and writes it, a file that ``--trust_file`` takes.

    Args:
        network: the network with these weights.
        cases: labelled crops, as ``run evaluating`` lists them.
        inferer: a :py:class:`rare_unet_networks.inferers.TrustInferer` with mode ``"full"``.
        class_names: classes above background.
        checkpoint: the weights; the model is used with them only.
        output_file: file of the model.
        acquisitions: spacings, see :py:func:`rare_unet_networks.data.read_acquisitions`.
        corruptions: number of corruptions of each case at each spacing.

    With fewer subjects than folds nothing is fitted or written, and a warning says so.
    """
    subjects = {subject_of(item["case"]) for item in cases}
    if len(subjects) < NUM_FOLDS:
        logger.warning(f"no trust model: it needs {NUM_FOLDS} subjects, the split has {len(subjects)}")
        return
    network.eval()

    def predict(volume: Mapping, task: tuple) -> dict[str, Any]:
        return predicted_scan(volume, task, inferer, network, inferer.scaling, len(class_names) + 1)

    tasks = trust_tasks([item["case"] for item in cases], read_acquisitions(list(acquisitions)), corruptions)
    rows = list(_rows(cases, tasks, predict))
    model = fit_trust(rows, class_names, inferer.levels.num_levels - 1)
    model.weights_sha256 = sha256(checkpoint)
    with replaced_as_a_whole(Path(output_file)) as temporary:
        model.save(temporary)
    logger.info(f"trust model of {len(rows)} scan(s), errors {model.errors}: {output_file}")
