"""Makes the brain-tumour bundle's sample: a phantom, not a patient. Scans of patients may not be passed on.

    python docs/experiment/scripts/make_phantom.py bundles/brain_tumor_mri_segmentation/sample

An ellipsoid of the size of a brain with grey and white matter as smooth random patches, two ventricles, and a tumour of
three nested parts with random outlines, in four contrasts as FLAIR, T1w, T1Gd and T2w show them, with noise, zero
outside. Written as the Decathlon does (4-D, at 2 mm, with its label), and as one file per modality in BraTS's names,
the T2w of which has slices of 6 mm.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch.nn import functional as F

MODALITIES = ("flair", "t1", "t1ce", "t2")
# Intensity of each tissue by modality, in the order of MODALITIES.
TISSUES = {
    "grey matter": (150, 160, 165, 200),
    "white matter": (120, 210, 215, 150),
    "fluid": (40, 70, 75, 420),
    "edema": (290, 150, 155, 330),
    "non-enhancing core": (190, 110, 115, 300),
    "enhancing rim": (230, 150, 330, 250),
}
EXTENT = (150, 186, 150)  # mm
CENTRE = (48.0, 95.0, 95.0)  # of the tumour, mm
NOISE = 8.0


def smooth_noise(random: np.random.Generator, size: tuple[int, ...], cell: float) -> np.ndarray:
    """Random field of unit variance whose patches are about ``cell`` voxels wide."""
    coarse = torch.from_numpy(random.standard_normal((1, 1, *(max(2, int(n / cell)) for n in size))))
    field = F.interpolate(coarse, size=size, mode="trilinear", align_corners=True)[0, 0].numpy()
    return field / field.std()


def phantom(spacing: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Image, shape (D, H, W, 4), and label: 1 edema, 2 non-enhancing, 3 enhancing tumour."""
    random = np.random.default_rng(seed)
    size = tuple(round(e / spacing) for e in EXTENT)
    mm = np.stack(np.meshgrid(*((np.arange(n) + 0.5) * spacing for n in size), indexing="ij"), axis=-1)
    middle = np.array(EXTENT) / 2
    brain = (((mm - middle) / (np.array(EXTENT) / 2 - 8)) ** 2).sum(axis=-1) < 1
    tissue = np.where(smooth_noise(random, size, 9 / spacing) > 0.2, 1, 0)
    tissue[(((mm - middle) / (np.array(EXTENT) / 2 - 14)) ** 2).sum(axis=-1) > 1] = 0  # cortex
    for side in (-1, 1):
        offset = mm - middle - np.array([side * 13.0, 5.0, 5.0])
        tissue[((offset / np.array([7.0, 32.0, 9.0])) ** 2).sum(axis=-1) < 1] = 2
    distance = np.linalg.norm(mm - np.array(CENTRE), axis=-1)
    distance += 3 * smooth_noise(random, size, 14 / spacing)
    label = np.select([distance < 10, distance < 15, distance < 27], [2, 3, 1], 0) * brain
    tissue = np.where(label > 0, np.array([0, 3, 4, 5])[label], tissue)
    image = np.array(list(TISSUES.values()), dtype=float)[tissue]
    bias = 1 + 0.05 * np.stack([smooth_noise(random, size, 60 / spacing) for _ in MODALITIES], axis=-1)
    image = image * bias + NOISE * random.standard_normal(image.shape)
    return np.where(brain[..., None], image.clip(min=1), 0).astype(np.int16), label.astype(np.uint8)


def affine(spacing: float) -> np.ndarray:
    """LPS, as the Decathlon's."""
    matrix = np.diag([-spacing, -spacing, spacing, 1.0])
    matrix[:3, 3] = np.array([EXTENT[0] / 2, EXTENT[1] / 2, -EXTENT[2] / 2]) + np.diag(matrix)[:3] / 2
    return matrix


def save(data: np.ndarray, matrix: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(data, matrix)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    print(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output_dir", type=Path)
    args = parser.parse_args()
    image, label = phantom(spacing=2.0)
    dataset = args.output_dir / "Task01_BrainTumour"
    save(image, affine(2.0), dataset / "imagesTr" / "phantom.nii.gz")
    save(label, affine(2.0), dataset / "labelsTr" / "phantom.nii.gz")
    for i, name in enumerate(MODALITIES):
        data, matrix = image[..., i], affine(2.0)
        if name == "t2":
            data = data.reshape(*data.shape[:2], -1, 3).mean(axis=-1).round().astype(np.int16)
            matrix = matrix @ np.diag([1.0, 1, 3, 1])
            matrix[2, 3] += 2.0  # the centre of the first three slices
        save(data, matrix, args.output_dir / "images" / "phantom_files" / f"phantom_files_{name}.nii.gz")


if __name__ == "__main__":
    main()
