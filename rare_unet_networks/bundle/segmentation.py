"""Segments one scan in Python with the inference of a bundle: its ``inference.json``, as the command runs it."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.data import MetaTensor

from ..cli.places import find_bundle
from ..utils.errors import is_user_error, root_cause
from .overrides import check_overrides

__all__ = ["Segmentation", "segment"]

Scan = str | os.PathLike | nib.spatialimages.SpatialImage | MetaTensor
OURS = ("input", "dataset_dir", "output_dir", "overwrite", "part")  # options that are set here
CASE = "scan"  # case of a scan that is no file


@dataclass(frozen=True)
class Segmentation:
    """Result of :py:func:`segment`.

    Attributes:
        label_map: class indices, on the grid that the option ``grid`` names.
        volumes: volume by class on that grid, mm3.
        record: what the command writes beside a label map: level, side, doubt, volumes on both grids and so on.
    """

    label_map: nib.Nifti1Image
    volumes: dict[str, float]
    record: dict[str, Any]

    @property
    def review(self) -> list[str]:
        """Reasons why the segmentation should be reviewed; none in most cases."""
        return list(self.record["review"])


def segment(
    scan: Scan | Mapping[str, Scan], task: str = "hippocampus", *, bundle: str | None = None, **options: Any
) -> Segmentation:
    """Segments a scan with the trained network of a bundle.

    Args:
        scan: a path, an image of nibabel, or a ``MetaTensor`` of shape (C, *spatial_size) whose affine is in mm. A scan
            of several modalities may be a mapping of the modality to its image.
        task: the task, such as ``"hippocampus"`` or ``"brain-tumour"``.
        bundle: folder or zip of a bundle; found as by the command ``rare-unet`` if None.
        options: options of the command, such as ``grid="fine"``, ``side="left"`` or ``device="cpu"``.

    Returns:
        the label map, the volumes and the record.

    Raises:
        ValueError: if the scan cannot be segmented, is more than one case, or an option is unknown.

    Example::

        result = segment("scan.nii.gz", "hippocampus", grid="fine")
        result.volumes  # {"anterior": 1354.0, "posterior": 1335.0}
        nibabel.save(result.label_map, "label_map.nii.gz")
    """
    found = find_bundle(task, bundle)
    config = str(found.config("inference.json"))
    refused = [name for name in options if name in OURS]
    if refused:
        raise ValueError(f"{', '.join(refused)}: segment() sets this option itself.")
    check_overrides([config], options)
    if "report" in ConfigParser.load_config_file(config):
        options = {"report": False, **options}  # its pictures would be removed with the folder
    with TemporaryDirectory(prefix="rare_unet_") as folder, _errors_in_one_line():
        source = _as_input(scan, Path(folder))
        with _quiet_monai(found.is_own):
            workflow = ConfigWorkflow(
                config,
                workflow_type="infer",
                logging_file=False,
                input=str(source),
                output_dir=str(Path(folder) / "output"),
                **options,
            )
            workflow.initialize()
        return _run(workflow, source, is_file=not isinstance(scan, (MetaTensor, nib.spatialimages.SpatialImage)))


def _run(workflow: ConfigWorkflow, source: Path, is_file: bool) -> Segmentation:
    content = workflow.parser.get_parsed_content
    scans = content("scans")
    if len(scans) != 1:
        raise ValueError(
            f"scan must be one case, {source} has {len(scans)}: {', '.join(item['case'] for item in scans)}."
        )
    workflow.run()
    failures = content("evaluator").failures + content("evaluator").refused
    if failures:
        name, reason = failures[0]
        raise ValueError(f"{name if is_file else CASE}: {reason}")
    records, case = content("records"), scans[0]["case"]
    record = records.read(case)
    image = nib.load(records.prediction(case))
    label_map = nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header)  # the file will be removed
    volumes = {}
    for name, volume in record["volumes"].items():
        is_fine = records.grid == "fine" and volume["mm3_fine"] is not None
        volumes[name] = volume["mm3_fine" if is_fine else "mm3"]
    if not is_file:
        record["scans"] = {}  # the files were temporary
    return Segmentation(label_map, volumes, record)


def _as_input(scan: Scan | Mapping[str, Scan], folder: Path) -> Path:
    """Path of a scan for the option ``input``; an image in memory is written to the folder.

    Raises:
        ValueError: if the scan is of another type.
    """
    if isinstance(scan, (str, os.PathLike)):
        return Path(scan)
    if isinstance(scan, Mapping):
        files = {
            str(m): str(_as_file(image, folder / f"modality_{i}.nii")) for i, (m, image) in enumerate(scan.items())
        }
        datalist = folder / "scan.json"
        datalist.write_text(json.dumps([{"image": files, "case": CASE}]), encoding="utf-8")
        return datalist
    return _as_file(scan, folder / f"{CASE}.nii")


def _as_file(scan: Scan, path: Path) -> Path:
    if isinstance(scan, (str, os.PathLike)):
        return Path(scan).absolute()
    if isinstance(scan, MetaTensor):
        scan = _as_image(scan)
    if not isinstance(scan, nib.spatialimages.SpatialImage):
        raise ValueError(
            "scan must be a path, an image of nibabel, a MetaTensor or a mapping of modalities to them, got "
            f"{type(scan).__name__}: a plain array has no voxel size."
        )
    nib.save(scan, path)
    return path


def _as_image(scan: MetaTensor) -> nib.Nifti1Image:
    """Image of a channel-first tensor; several channels become the last axis, as in files."""
    if scan.ndim != 4:
        raise ValueError(f"scan must have the shape (C, *spatial_size) with 3 spatial axes, got {tuple(scan.shape)}.")
    data = scan.detach().as_tensor().to("cpu", torch.float32).movedim(0, -1).numpy()
    return nib.Nifti1Image(data[..., 0] if data.shape[-1] == 1 else data, scan.affine.double().cpu().numpy())


@contextmanager
def _errors_in_one_line() -> Iterator[None]:
    """Raises the cause of an error that a user can correct: MONAI says only which entry of the config failed."""
    try:
        yield
    except Exception as error:
        if not is_user_error(error):
            raise
        raise ValueError(root_cause(error)) from error


@contextmanager
def _quiet_monai(is_own: bool) -> Iterator[None]:
    """Leaves out what MONAI says of the log; and that configs can run code, if they came with the package."""
    logger = logging.getLogger("monai.bundle.workflows")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            if is_own:
                warnings.filterwarnings("ignore", message="parsing config_file")
            yield
    finally:
        logger.setLevel(level)
