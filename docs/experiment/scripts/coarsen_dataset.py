"""Writes a dataset again at 1/2, 1/4, … of its resolution, for experiments that would take too long at the full one.

    python docs/experiment/scripts/coarsen_dataset.py Task01_BrainTumour Task01_at_2mm --level 1
    python docs/experiment/scripts/coarsen_dataset.py Task01_BrainTumour whole_tumour_2mm --channels 0 2 --one_class

Scans become block means, labels the majority of each block, on the same physical grid, by the very code that makes the
coarse scans of training and evaluation.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from monai.transforms import Compose, LoadImaged, SaveImage

from rare_unet_networks.data.datalists import case_id, list_niftis
from rare_unet_networks.transforms.low_resolution import SimulateLowResolutiond


def coarsen_case(
    image: Path,
    label: Path,
    level: int,
    output_dir: Path,
    channels: Sequence[int] | None = None,
    one_class: bool = False,
) -> None:
    """Writes ``imagesTr`` and ``labelsTr`` of one case: all channels or some, and all classes or their union."""
    read = Compose(
        [LoadImaged(["image", "label"], ensure_channel_first=True), SimulateLowResolutiond("image", "label")]
    )
    data = read({"image": image, "label": label, "level": level})
    if channels is not None:
        data["image"] = data["image"][list(channels)]
    if one_class:
        data["label"] = (data["label"] > 0).to(torch.uint8)
    for key, folder, dtype in (("image", "imagesTr", torch.float32), ("label", "labelsTr", torch.uint8)):
        (output_dir / folder).mkdir(parents=True, exist_ok=True)
        save = SaveImage(output_ext=".nii.gz", output_dtype=dtype, resample=False, print_log=False, channel_dim=0)
        save(data[key], filename=output_dir / folder / case_id(image))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset_dir", type=Path, help="with imagesTr/ and labelsTr/, as the Decathlon's")
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("--level", type=int, default=1, help="1 for half the resolution, 2 for a quarter, …")
    parser.add_argument("--channels", type=int, nargs="+", help="channels to keep, from 0; by default all")
    parser.add_argument("--one_class", action="store_true", help="make one class of all")
    args = parser.parse_args()
    if not (args.dataset_dir / "labelsTr").is_dir() or not (labels := list_niftis(args.dataset_dir / "labelsTr")):
        parser.error(f"{args.dataset_dir} must have NIfTI files in labelsTr/, found none")
    for label in labels:
        coarsen_case(
            args.dataset_dir / "imagesTr" / label.name,
            label,
            args.level,
            args.output_dir,
            args.channels,
            args.one_class,
        )
        print(label.name)


if __name__ == "__main__":
    main()
