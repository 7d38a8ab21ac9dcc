"""Makes a bundle of one's own from a bundle of this repository and an overlay, the file of a task.

    python tools/new_bundle.py bundles/brain_tumor_mri_segmentation my_task.json bundles/my_task \\
        --splits_file my_splits.json --checkpoint runs/my_task/model.pt

The new bundle is a folder of the same configs with the overlay's values in them. It runs without the overlay:
``rare-unet my-task my_scans``. ``metadata.json`` describes the new classes and modalities. The sample, the scores and
the text about the data are left out.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from rare_unet_networks.bundle.overlays import check_overlays
from rare_unet_networks.utils.files import read_json

# What belongs to the task of the bundle that is copied.
LEFT_OUT = shutil.ignore_patterns(
    "output", "data", "models", "sample", "docs", "splits*.json", "segment_codes.json", "metadata.json", ".*"
)
CONFIGS = ("inference.json", "train.json", "evaluate.json")
# Entries of the metadata that say how good or what the copied bundle is.
OF_THE_SOURCE = ("eval_metrics", "verification", "data_source", "datasets", "references")


def apply_overlay(config: dict[str, Any], overlay: Mapping[str, Any]) -> set[str]:
    """Sets the entries of a config that an overlay names, and returns their names. Others are left to other configs."""
    parser = ConfigParser(config)
    applied = set()
    for written, value in overlay.items():
        key = written.replace("::", "#")
        if key in parser or ("#" in key and key.rpartition("#")[0] in parser):
            parser[key] = value
            applied.add(written)
    return applied


def new_metadata(source: Mapping[str, Any], config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Metadata of a bundle with the classes and modalities of a config.

    Args:
        source: metadata of the bundle that was copied.
        config: the new ``inference.json``.
        name: name of the new bundle.
    """
    metadata = {key: value for key, value in source.items() if key not in OF_THE_SOURCE}
    classes = ["background", *config["class_names"]]
    task = f"Segmentation of {', '.join(classes[1:])}"
    channels = list(config.get("modalities", [])) or ["image"]
    listed = ", ".join(f"{index}: {label}" for index, label in enumerate(classes))
    metadata |= {
        "version": "0.1.0",
        "changelog": {"0.1.0": "first version"},
        "name": name,
        "task": task,
        "description": f"{task}, by a RARE-UNet.",
        "image_classes": ", ".join(channels),
        "label_classes": f"single channel, {listed}",
        "pred_classes": f"{len(classes)} channels, {', '.join(classes)}",
    }
    data_format = json.loads(json.dumps(source["network_data_format"]))
    data_format.pop("post_processed_outputs", None)  # the labels of the source
    shape = list(config["levels"]["spatial_size"])
    for direction, key, names in (("inputs", "image", channels), ("outputs", "pred", classes)):
        data_format[direction][key] |= {
            "num_channels": len(names),
            "spatial_shape": shape,
            "channel_def": {str(index): label for index, label in enumerate(names)},
        }
    return {**metadata, "network_data_format": data_format}


def make_bundle(
    source: Path, overlay_file: Path, target: Path, splits_file: Path | None = None, checkpoint: Path | None = None
) -> None:
    """Makes a bundle.

    Args:
        source: the bundle to copy.
        overlay_file: the overlay.
        target: folder of the new bundle.
        splits_file: cases of each split; without it there are none, and every labelled case counts as ``test``.
        checkpoint: trained weights.

    Raises:
        ValueError: if a path is missing, the target exists, or an entry of the overlay is in no config.
    """
    if not (source / "configs" / "inference.json").is_file():
        raise ValueError(f"the source must be a bundle, {source} has no configs/inference.json.")
    if target.exists():
        raise ValueError(f"{target} exists already: remove it, or give another name.")
    for path in filter(None, (overlay_file, splits_file, checkpoint)):
        if not path.is_file():
            raise ValueError(f"{path} must be a file, it does not exist.")
    overlay = read_json(overlay_file)
    if not isinstance(overlay, dict):
        raise ValueError(f"{overlay_file} must be a JSON object, got a {type(overlay).__name__}.")
    try:
        check_overlays([str(source / "configs" / "train.json"), str(overlay_file)])
    except SystemExit as error:
        raise ValueError(str(error).removeprefix("error: ")) from None
    configs = {name: read_json(source / "configs" / name) for name in CONFIGS}
    applied = set().union(*(apply_overlay(config, overlay) for config in configs.values()))
    unknown = [key for key in overlay if key not in applied]
    if unknown:
        raise ValueError(f"{overlay_file}: {', '.join(unknown)}: no config of {source} has this entry: write it there.")
    shutil.copytree(source, target, ignore=LEFT_OUT)
    for name, config in configs.items():
        _write(target / "configs" / name, config)
    _write(
        target / "configs" / "splits.json", read_json(splits_file) if splits_file else {"train": [], "validation": []}
    )
    metadata = read_json(source / "configs" / "metadata.json")
    _write(target / "configs" / "metadata.json", new_metadata(metadata, configs["inference.json"], target.name))
    (target / "docs").mkdir()
    (target / "docs" / "README.md").write_text(f"# {target.name}\n\nThe task, its data and its scores.\n")
    (target / "models").mkdir()
    if checkpoint:
        shutil.copyfile(checkpoint, target / "models" / "model.pt")


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="bundle to copy")
    parser.add_argument("overlay", type=Path, help="config file of the task")
    parser.add_argument("target", type=Path, help="folder of the new bundle")
    parser.add_argument("--splits_file", type=Path, help="cases of each split")
    parser.add_argument("--checkpoint", type=Path, help="trained weights, as models/model.pt of the new bundle")
    args = parser.parse_args(argv)
    try:
        make_bundle(args.source, args.overlay, args.target, args.splits_file, args.checkpoint)
    except ValueError as error:
        parser.error(str(error))
    print(f"{args.target} is ready")


if __name__ == "__main__":
    main()
