"""Corrupts scans as scanners, headers and users do, to learn what wrong predictions look like."""

from __future__ import annotations

import numpy as np
import torch
from monai.transforms import AdjustContrast, Affine, GaussianSmooth, RandBiasField, RandRicianNoise

__all__ = ["CORRUPTIONS", "corrupted"]

CORRUPTIONS = ("noise", "blur", "bias field", "gamma", "inverted", "motion", "cut", "orientation", "spacing")
HEADER_FACTORS = (0.5, 0.7, 0.85, 1.2, 1.5, 2.0)  # of a header that errs about the voxel size


def corrupted(
    kind: str, image: torch.Tensor, label: torch.Tensor, random: np.random.RandomState
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Corrupts a scan and changes its label accordingly; how much is drawn at random.

    Args:
        kind: one of ``CORRUPTIONS``, or ``"clean"``, which changes nothing.
        image: intensities from 0 to 1, shape (1, *spatial_size), three spatial axes.
        label: class indices, likewise.
        random: source of the numbers.

    Returns:
        image and label, and the factor by which the voxel size in the header has to be multiplied.

    Raises:
        ValueError: if the kind is unknown.
    """
    if kind not in ("clean", *CORRUPTIONS):
        raise ValueError(f"kind must be 'clean' or one of {CORRUPTIONS}, got {kind!r}.")
    seed = random.randint(2**31)
    factor = 1.0
    if kind == "noise":
        noise = RandRicianNoise(1.0, std=random.uniform(0.03, 0.25), sample_std=False)
        image = noise.set_random_state(seed)(image)
    elif kind == "blur":
        image = GaussianSmooth(random.uniform(0.7, 2.5))(image)
    elif kind == "bias field":
        image = RandBiasField(coeff_range=(0.05, 0.3), prob=1.0).set_random_state(seed)(image)
    elif kind == "gamma":
        image = AdjustContrast(float(np.exp(random.choice([-1, 1]) * random.uniform(0.4, 1.2))))(image)
    elif kind == "inverted":
        image = 1 - image
    elif kind == "motion":
        image = _moved(image, random)
    elif kind == "cut":
        image, label = _cut(image, label, random)
    elif kind == "orientation":
        image, label = _turned(image, label, random)
    elif kind == "spacing":
        factor = float(random.choice(HEADER_FACTORS))
    return torch.as_tensor(image), torch.as_tensor(label), factor


def _moved(image: torch.Tensor, random: np.random.RandomState) -> torch.Tensor:
    """A scan during which the head moved: some lines of its Fourier space are those of the turned and shifted head.

    The lines of low frequency stay: they say where the head is, and the label has to lie there.
    """
    turn = Affine(
        rotate_params=np.deg2rad(random.uniform(-6, 6, 3)).tolist(),
        translate_params=random.uniform(-3, 3, 3).tolist(),
        padding_mode="border",
        image_only=True,
    )
    spectra = [torch.fft.fftn(v[0]) for v in (image, torch.as_tensor(turn(image)))]
    num_lines = image.shape[2]
    kept = num_lines // 10 + 1  # on either side of the frequency 0
    moved = int(random.uniform(0.15, 0.5) * num_lines)
    start = random.randint(kept, num_lines - kept - moved + 1)
    lines = list(range(start, start + moved))
    mixed = spectra[0].clone()
    mixed[:, lines] = spectra[1][:, lines]
    return torch.fft.ifftn(mixed).abs()[None].float()


def _cut(image: torch.Tensor, label: torch.Tensor, random: np.random.RandomState) -> tuple[torch.Tensor, torch.Tensor]:
    """A field of view that ends inside of the structure, on a random side."""
    axis = random.randint(3)
    places = (label[0] > 0).nonzero()[:, axis].numpy()
    at = int(np.quantile(places, random.uniform(0.15, 0.85)))
    part = slice(0, at + 1) if random.rand() < 0.5 else slice(at, None)
    index = (slice(None), *(part if a == axis else slice(None) for a in range(3)))
    return image[index], label[index]


def _turned(
    image: torch.Tensor, label: torch.Tensor, random: np.random.RandomState
) -> tuple[torch.Tensor, torch.Tensor]:
    """A header that names the axes wrongly, by more than left and right: that would be a scan of the other side."""
    axes = random.permutation(3).tolist()
    flips = [1 + a for a in range(3) if random.rand() < 0.5]
    if axes == [0, 1, 2] and not set(flips) - {1}:
        flips = [2]
    image, label = (x.permute(0, *(1 + a for a in axes)).flip(flips) for x in (image, label))
    return image, label
