"""A folder of segmented cases with their scans."""

import json

import nibabel as nib
import numpy as np
import pytest

from rare_unet_networks.data import prediction_path
from rare_unet_networks.data.record_files import record_path

SIDED = ("left_anterior", "left_posterior", "right_anterior", "right_posterior")


def add_case(folder, case, classes=("anterior", "posterior"), **entries):
    """Writes a scan with a bright box per class, its label map and its record; returns the record."""
    shape, affine = (40, 30, 20), np.diag([1, 1, 2, 1])
    labels = np.zeros(shape, np.uint8)
    for index in range(1, len(classes) + 1):
        labels[8 * index : 8 * index + 6, 8:16, 6:12] = index
    noise = np.random.default_rng(0).random(shape)
    scan = folder / "scans" / f"{case}.nii.gz"
    prediction = prediction_path(case, "scan", folder)
    for path in (scan, prediction):
        path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image((50 * (labels > 0) + 20 * noise).astype(np.float32), affine), scan)
    nib.save(nib.Nifti1Image(labels, affine), prediction)
    volumes = {name: {"voxels": 288, "mm3": 576.0, "mm3_fine": 570.0} for name in classes}
    record = {"case": case, "grid": "scan", "version": "9.9", "spacing": [1.0, 1.0, 2.0], "level": 0, "seconds": 0.5}
    record |= {"volumes": volumes, "review": [], "scans": {"image": {"file": str(scan)}}, **entries}
    record_path(prediction).write_text(json.dumps(record))
    return record


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "out"
