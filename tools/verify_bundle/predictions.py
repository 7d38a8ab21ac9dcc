"""Checks of a bundle's predictions: ``inference.json`` is run on scans, and the saved files are read."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys

import nibabel as nib
import numpy as np

from .common import Bundle, Failed, NotChecked
from .samples import coarse, dice_of, labels_of, of_samples, off_grid, read_predictions, samples, segment

__all__ = [
    "check_accuracy", "check_command", "check_grid", "check_input", "check_orientation", "check_thick_slices", "store",
]  # fmt: skip

STORED = "verification"  # entry of the metadata that holds the figures
TOLERANCE = 0.005  # of Dice, on another machine
ORIENTATIONS = [np.array(list(zip(axes, flips)), float) for axes in itertools.permutations(range(3))
                for flips in itertools.product((1, -1), repeat=3)]  # fmt: skip
FEW_VOXELS = 100_000  # a scan is made coarser for the 48 orientations until it has no more
SMALLEST = 8  # voxels an axis keeps in that
SAME = 0.001  # of the structure's voxels may differ between orientations: interpolation rounds
THICK = 3  # slices, in voxels
THICK_DICE = 0.7  # of the prediction for thick slices with that for the scan, where no figure is stored


def check_accuracy(bundle: Bundle) -> str:
    """Dice on the labelled sample is the stored one; of a folder given, on the cases that have a stored one."""
    scans, predictions = of_samples(bundle)
    stored = bundle.metadata.get(STORED, {}).get("dice")
    if stored is None:
        raise NotChecked(f"no figures in metadata.json#{STORED}; --store writes them")
    tolerance = bundle.metadata[STORED].get("tolerance", TOLERANCE)
    absent = stored.keys() - scans.keys()
    if absent and bundle.sample is None:
        raise Failed(f"figures are stored of {', '.join(sorted(absent))}, the sample has no such case")
    unknown = sorted(scans.keys() - stored.keys())
    lacking = f"no figure is stored of {', '.join(unknown)}"
    if unknown and bundle.sample is None:
        raise Failed(f"{lacking}; --store writes them")
    if len(unknown) == len(scans):
        raise NotChecked(lacking)
    texts = []
    for case, (_, label) in scans.items():
        if case in unknown:
            continue
        dice = dice_of(labels_of(predictions[case]), labels_of(label))
        expected = stored[case]
        for name in sorted(dice.keys() | expected.keys()):
            value = dice.get(name, 0.0)
            where = f"{case}, {'all classes' if name == 'all' else f'class {name}'}"
            if name not in expected:
                raise Failed(f"no figure is stored of {where}; --store writes them")
            if not abs(value - expected[name]) <= tolerance:  # so that NaN fails
                raise Failed(f"{where}: Dice {value}, stored is {expected[name]} ± {tolerance}")
        texts.append(f"{case} {', '.join(f'{name}: {value:.3f}' for name, value in dice.items())}")
    return f"Dice of {'; '.join(texts)} (stored ± {tolerance}){f'; {lacking}' if unknown else ''}"


def check_grid(bundle: Bundle) -> str:
    """A prediction has the shape and the affine of its scan's file."""
    scans, predictions = of_samples(bundle)
    for case, (scan, _) in scans.items():
        if text := off_grid(scan, predictions[case]):
            raise Failed(f"{case}: {text}")
    return f"{len(scans)} predictions have their scan's shape and affine"


def check_input(bundle: Bundle) -> str:
    """What inference.json makes of a sample has the channels, type and range of values that the metadata says."""
    (name, (scan, _)), *_ = samples(bundle).items()
    path = bundle.work / f"{name}.nii.gz"
    nib.save(scan, path)
    workflow = bundle.workflow("inference.json", **{"dataset#data": [{"image": str(path)}]})
    image = workflow.dataset[0].get("image")
    stated = next(iter(bundle.metadata["network_data_format"]["inputs"].values()))
    channels, dtype = image.shape[0], str(image.dtype).removeprefix("torch.")
    if (channels, dtype) != (stated["num_channels"], stated["dtype"]):
        raise Failed(f"{channels} channels of {dtype}, metadata.json: {stated['num_channels']}, {stated['dtype']}")
    low, high = float(image.min()), float(image.max())
    if stated["value_range"] and not stated["value_range"][0] <= low <= high <= stated["value_range"][1]:
        raise Failed(f"values of {low:.3g} to {high:.3g}, metadata.json says {stated['value_range']}")
    return f"{channels} channel(s) of {dtype}, values of {low:.3g} to {high:.3g}"


def check_orientation(bundle: Bundle) -> str:
    """One scan stored in all 48 axis orders and flips gets the same segmentation: its affine says how it lies."""
    scan = min((image for image, _ in samples(bundle).values()), key=lambda image: np.prod(image.shape))
    while np.prod(scan.shape[:3]) > FEW_VOXELS and min(scan.shape[:3]) >= 2 * SMALLEST:
        scan = coarse(scan, (2, 2, 2))
    turned = {i: scan.as_reoriented(orientation) for i, orientation in enumerate(ORIENTATIONS)}
    predictions = segment(bundle, turned)
    maps = []
    for name, image in turned.items():
        if text := off_grid(image, predictions[name]):
            raise Failed(f"stored as {''.join(nib.aff2axcodes(image.affine))}: {text}")
        maps.append(labels_of(nib.as_closest_canonical(predictions[name])))
    structure = int((maps[0] > 0).sum())
    if not structure:
        raise NotChecked("the network finds nothing in the sample")
    for image, labels in zip(turned.values(), maps):
        differing = int((labels != maps[0]).sum())
        if differing > SAME * structure:
            how = "".join(nib.aff2axcodes(image.affine))
            raise Failed(f"stored as {how}, {differing} voxels differ of {structure} of the structure")
    return f"{len(maps)} ways to store a scan of {scan.shape[:3]}, {structure} voxels of structure, the same prediction"


def thick_dice(bundle: Bundle) -> tuple[str, dict[str, float]]:
    """Returns a case and, by axis of the thick slices, Dice (classes merged) with the prediction for the scan."""
    scans, predictions = of_samples(bundle)
    case, (scan, _) = next(iter(scans.items()))
    factors = {f"axis{i}": tuple(THICK if i == axis else 1 for axis in range(3)) for i in range(3)}
    thick = {name: coarse(scan, f) for name, f in factors.items()}
    thick_predictions = segment(bundle, thick)
    result = {}
    for name, f in factors.items():
        if text := off_grid(thick[name], thick_predictions[name]):
            raise Failed(f"{name}: {text}")
        expected = labels_of(coarse(predictions[case], f, majority=True))
        if not expected.any():
            raise NotChecked("the network finds nothing in the sample")
        result[name] = dice_of(labels_of(thick_predictions[name]), expected)["all"]
    return case, result


def check_thick_slices(bundle: Bundle) -> str:
    """Slices three times as thick, along any axis, get nearly the scan's prediction, coarsened in the same way."""
    case, dice_by_axis = thick_dice(bundle)
    stored = bundle.metadata.get(STORED, {}).get("thick_slices", {}).get(case)
    tolerance = bundle.metadata.get(STORED, {}).get("tolerance", TOLERANCE)
    for axis, dice in dice_by_axis.items():
        least = THICK_DICE if stored is None else round(stored[axis] - tolerance, 4)
        if not dice >= least:  # so that NaN fails
            raise Failed(f"{case}, {THICK} voxels along {axis} as one: Dice {dice}, expected {least} at least")
    texts = ", ".join(f"{axis}: {dice:.3f}" for axis, dice in dice_by_axis.items())
    return f"{case}, {THICK} voxels as one: Dice with the prediction for the scan {texts}"


def check_command(bundle: Bundle) -> str:
    """``python -m monai.bundle run`` in an empty folder ends well and saves the same prediction."""
    scans, predictions = of_samples(bundle)
    case, (scan, _) = next(iter(scans.items()))
    folder, output = bundle.work / "elsewhere", bundle.work / "elsewhere_predictions"
    folder.mkdir()
    nib.save(scan, bundle.work / f"{case}.nii.gz")
    values = bundle.overridden("inference.json") | {"output_dir": str(output)}
    values["dataset#data"] = [{"image": str(bundle.work / f"{case}.nii.gz")}]
    words = [sys.executable, "-m", "monai.bundle", "run", "--config_file", bundle.config("inference.json")]
    words += [word for key, value in values.items() for word in (f"--{key}", str(value))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(bundle.root), os.environ.get("PYTHONPATH", "")])}
    result = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    if result.returncode:
        lines = [line for line in (result.stdout + result.stderr).splitlines() if line.strip()]
        raise Failed(f"it ended with {result.returncode}: {lines[-1]}")
    (prediction,) = read_predictions(output, [case]).values()
    if not np.array_equal(labels_of(prediction), labels_of(predictions[case])):
        raise Failed("it saved another prediction than the workflow run in Python")
    left = sorted(p.name for p in folder.iterdir())
    if left:
        raise Failed(f"it left {', '.join(left)} in the folder it was run in")
    return "run from an empty folder, it saved the same prediction"


def store(bundle: Bundle) -> str:
    """Writes the figures of the samples into the metadata."""
    scans, predictions = of_samples(bundle)
    dice = {case: dice_of(labels_of(predictions[case]), labels_of(label)) for case, (_, label) in scans.items()}
    thick = dict([thick_dice(bundle)])
    bundle.metadata[STORED] = {"tolerance": TOLERANCE, "dice": dice, "thick_slices": thick}
    text = json.dumps(bundle.metadata, indent=4, ensure_ascii=False, allow_nan=False) + "\n"
    (bundle.configs / "metadata.json").write_text(text, encoding="utf-8")
    return f"figures of {len(dice)} cases in metadata.json#{STORED}"
