"""A bundle's own ``inference.json``, run on scans: what it saves is read back; and label maps and their Dice.

The scans are labelled ones in the Decathlon's layout (``imagesTr``, ``labelsTr``) within the bundle, or a folder given.
"""

from __future__ import annotations

import glob
import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from .common import Bundle, Failed, NotChecked, reason, visible_files

__all__ = [
    "Image",
    "coarse",
    "dice_of",
    "labels_of",
    "of_samples",
    "off_grid",
    "read_predictions",
    "samples",
    "segment",
]

Image = nib.Nifti1Image
LABELS = "labelsTr/*.nii*"
SHORT = 120  # characters of the reason why inference failed: several checks say it


def samples(bundle: Bundle) -> dict[str, tuple[Image, Image]]:
    """Returns (image, label) by case.

    Raises:
        NotChecked: If there is none.
    """
    labels = bundle.bundle_files(LABELS) if bundle.sample is None else visible_files(bundle.sample, LABELS)
    cases = {}
    for label in labels:
        image = label.parents[1] / "imagesTr" / label.name
        if image.is_file():
            cases[label.name.split(".nii")[0]] = nib.load(image), nib.load(label)
    if not cases:
        raise NotChecked("no labelled sample (imagesTr, labelsTr) in the bundle; give --sample FOLDER")
    return cases


@contextmanager
def errors_logged() -> Iterator[list[str]]:
    """Messages of errors, as they are logged: engines that go on after a failed case say so there only."""
    messages: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: messages.append(record.getMessage())
    logging.getLogger().addHandler(handler)
    try:
        yield messages
    finally:
        logging.getLogger().removeHandler(handler)


def segment(bundle: Bundle, scans: Mapping[Any, Image]) -> dict[Any, Image]:
    """Runs the bundle on scans and returns its predictions, by name."""
    folder = Path(tempfile.mkdtemp(dir=bundle.work))
    source, output = folder / "scans", folder / "predictions"
    source.mkdir()
    files = {f"scan{i:04d}": scan for i, scan in enumerate(scans.values())}  # no name is a prefix of another
    items = [{"image": str(source / f"{name}.nii.gz")} for name in files]
    for item, scan in zip(items, files.values()):
        nib.save(scan, item["image"])
    with errors_logged() as errors:
        workflow = bundle.workflow("inference.json", **{"dataset#data": items, "output_dir": str(output)})
        try:
            workflow.run()
            workflow.finalize()
        except SystemExit as error:
            errors.append(f"it ended with {error}")
        except Exception as error:
            raise Failed(f"inference failed: {reason(error, SHORT)}") from error
    return dict(zip(scans, read_predictions(output, files, errors).values()))


def read_predictions(output: Path, names: Iterable[str], errors: Sequence[str] = ()) -> dict[str, Image]:
    """Reads the NIfTI file saved for each name.

    Raises:
        Failed: If there is none or several; the message contains the first logged error.
    """
    predictions = {}
    for name in names:
        files = sorted(output.rglob(f"{glob.escape(name)}*.nii*"))
        if len(files) != 1:
            why = f": {errors[0]}" if errors else ""
            raise Failed(f"inference of {name} saved {len(files)} NIfTI files, expected 1{why}")
        predictions[name] = nib.load(files[0])
    return predictions


def labels_of(image: Image) -> np.ndarray:
    """Returns an image's label map without trailing axes of one voxel."""
    data = np.asarray(image.dataobj)
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    return data


def of_samples(bundle: Bundle) -> tuple[dict[str, tuple[Image, Image]], dict[str, Image]]:
    """Returns the samples and their predictions, which are computed once for all checks."""
    scans = samples(bundle)
    if not bundle.predictions:
        bundle.predictions = segment(bundle, {name: image for name, (image, _) in scans.items()})
    return scans, bundle.predictions


def off_grid(scan: Image, prediction: Image) -> str:
    """Returns how a prediction's grid differs from its scan's; empty if it does not."""
    shape = labels_of(prediction).shape
    if shape != scan.shape[:3]:
        return f"shape {shape}, the scan has {scan.shape[:3]}"
    worst = np.abs(prediction.affine - scan.affine).max()
    return f"its affine is off by {worst:.3g}" if worst > 1e-3 else ""


def dice_of(prediction: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """Dice by class of the label; of all classes as one under "all". It is 1 where both are empty: nothing is wrong."""
    classes = [int(c) for c in np.unique(label) if c > 0]
    pairs = {str(c): (prediction == c, label == c) for c in classes} | {"all": (prediction > 0, label > 0)}
    return {name: round(_dice(a, b), 4) for name, (a, b) in pairs.items()}


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    voxels = a.sum() + b.sum()
    return float(2 * (a & b).sum() / voxels) if voxels else 1.0


def coarse(image: Image, factors: Sequence[int], majority: bool = False) -> Image:
    """Returns an image of block means (or the majority, for a label map) with the affine of the coarse grid."""
    data = labels_of(image) if majority else np.asarray(image.dataobj, dtype=np.float32)
    size = [n // f for n, f in zip(data.shape, factors)]
    data = data[tuple(slice(n * f) for n, f in zip(size, factors))]
    split = [part for n, f in zip(size, factors) for part in (n, f)]
    blocks = data.reshape(*split, *data.shape[3:])
    if majority:
        counts = [(blocks == c).sum(axis=(1, 3, 5)) for c in range(int(data.max()) + 1)]
        data = np.argmax(counts, axis=0).astype(np.uint8)
    else:
        data = blocks.mean(axis=(1, 3, 5))
    affine = image.affine @ np.diag([*map(float, factors), 1])
    affine[:3, 3] += image.affine[:3, :3] @ ((np.array(factors) - 1) / 2)
    return nib.Nifti1Image(data, affine)
