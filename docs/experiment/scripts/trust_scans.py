"""Measures of predictions of validation volumes, clean and corrupted, at many spacings: docs/experiment/.../trust.csv.

    python docs/experiment/scripts/trust_scans.py --dataset_dir Task04_Hippocampus --checkpoint model.pt [--limit N]

Each volume is acquired at every spacing, as it is and corrupted in some ways that are drawn at random. Rows that the
file has already are kept, so that a run can be continued. `trust.py` fits the model to them.
"""

from __future__ import annotations

import argparse
import csv
import logging
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from experiment_results import ROOT
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import (
    Affine,
    AdjustContrast,
    Compose,
    EnsureChannelFirstd,
    GaussianSmooth,
    LoadImaged,
    Orientationd,
    RandBiasField,
    RandRicianNoise,
    ResampleToMatch,
    ScaleIntensity,
)

from rare_unet_networks.data import labelled_datalist
from rare_unet_networks.data.acquisitions import read_acquisitions
from rare_unet_networks.inferers import ResolutionRoutingInferer, TrustInferer
from rare_unet_networks.metrics.multi_scale import dice_per_class
from rare_unet_networks.networks import load_weights
from rare_unet_networks.transforms import simulate_acquisition

BUNDLE = ROOT / "bundles/hippocampus_mri_segmentation"
TABLE = ROOT / "docs/experiment/hippocampus/trust.csv"
SPACINGS = (1, 1.4, 2, 3, 4, 5, 6, 8, [1, 1, 3], [1, 1, 5], [5, 1, 1], [1, 1, 7], [1, 1, 10], [2, 2, 5])
KINDS = ("noise", "blur", "bias field", "gamma", "inverted", "motion", "cut", "orientation", "spacing")
COLUMNS = ("case", "kind", "acquired", "level", "spacing", "anisotropy", "agreement_1", "agreement_2", "confidence_1")
COLUMNS += ("confidence_2", "volume_1", "volume_2", "label_volume_1", "label_volume_2", "doubt", "doubt_2", "border")
COLUMNS += ("stability_1", "stability_2", "dice_1", "dice_2", "true_1", "true_2")
NUM_CLASSES = 3


def moved(image: torch.Tensor, random: np.random.RandomState) -> torch.Tensor:
    """A scan during which the head moved: some lines of its Fourier space are those of the turned and shifted head."""
    turn = Affine(
        rotate_params=np.deg2rad(random.uniform(-6, 6, 3)).tolist(),
        translate_params=random.uniform(-3, 3, 3).tolist(),
        padding_mode="border",
        image_only=True,
    )
    spectra = [torch.fft.fftn(v[0]) for v in (image, torch.as_tensor(turn(image)))]
    start, lines = random.randint(image.shape[2]), int(random.uniform(0.15, 0.5) * image.shape[2])
    mixed = spectra[0].clone()
    rows = [(start + i) % image.shape[2] for i in range(lines)]
    mixed[:, rows] = spectra[1][:, rows]
    return torch.fft.ifftn(mixed).abs()[None].float()


def corrupted(
    kind: str, image: torch.Tensor, label: torch.Tensor, random: np.random.RandomState
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Returns a volume of [0, 1] and its label spoilt in a way, and the factor by which its header errs."""
    seed = random.randint(2**31)
    if kind == "noise":
        image = RandRicianNoise(1.0, std=random.uniform(0.03, 0.25), sample_std=False).set_random_state(seed)(image)
    elif kind == "blur":
        image = GaussianSmooth(random.uniform(0.7, 2.5))(image)
    elif kind == "bias field":
        image = RandBiasField(coeff_range=(0.05, 0.3), prob=1.0).set_random_state(seed)(image)
    elif kind == "gamma":
        image = AdjustContrast(float(np.exp(random.choice([-1, 1]) * random.uniform(0.4, 1.2))))(image)
    elif kind == "inverted":
        image = 1 - image
    elif kind == "motion":
        image = moved(image, random)
    elif kind == "cut":
        axis = random.randint(3)
        places = (label[0] > 0).nonzero()[:, axis].numpy()
        at = int(np.quantile(places, random.uniform(0.15, 0.85)))
        part = slice(0, at + 1) if random.rand() < 0.5 else slice(at, None)
        index = (slice(None), *(part if a == axis else slice(None) for a in range(3)))
        image, label = image[index], label[index]
    elif kind == "orientation":
        axes = random.permutation(3).tolist()
        flips = [1 + a for a in range(3) if random.rand() < 0.5]
        if axes == [0, 1, 2] and not flips:
            flips = [2]
        image, label = (x.permute(0, *(1 + a for a in axes)).flip(flips) for x in (image, label))
    factor = float(random.choice([0.5, 0.7, 0.85, 1.2, 1.5, 2.0])) if kind == "spacing" else 1.0
    return image, label, factor


def tasks(cases: list[str], corruptions: int) -> Iterator[tuple[str, int, str]]:
    """Case, number of the spacing and kind, in an order in which any beginning has all of them about equally often."""
    random = np.random.RandomState(0)
    order = []
    for case in cases:
        for number in range(len(SPACINGS)):
            kinds = random.choice(KINDS, corruptions, replace=False).tolist()
            order += [(case, number, kind) for kind in ("clean", *kinds)]
    yield from (order[i] for i in random.permutation(len(order)))


def main() -> None:
    """Reads the command line and adds rows to the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--checkpoint", default=str(BUNDLE / "models/model.pt"))
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--corruptions", type=int, default=2, help="kinds drawn for each volume and spacing")
    parser.add_argument("--full", type=int, default=3, help="every N-th scan is shifted too, for --trust full")
    parser.add_argument("--limit", type=int, help="number of scans")
    args = parser.parse_args()
    config = ConfigParser()
    config.read_config(BUNDLE / "configs/inference.json")
    levels, network, scaling = map(config.get_parsed_content, ("levels", "network_def", "scaling"))
    load_weights(args.checkpoint, network, map_location="cpu")
    network.eval()
    logging.disable(logging.WARNING)
    plain = ResolutionRoutingInferer(levels, output="both")
    inferers = {mode: TrustInferer(plain, mode, scaling) for mode in ("true", "full")}
    acquisitions = read_acquisitions(list(SPACINGS))
    load = Compose(
        [
            LoadImaged(["image", "label"]),
            EnsureChannelFirstd(["image", "label"]),
            Orientationd(["image", "label"], axcodes="RAS", labels=None),
        ]
    )
    items = labelled_datalist(args.dataset_dir, str(BUNDLE / "configs/splits.json"), "validation")
    files = {item["case"]: item for item in items}
    volumes: dict[str, dict] = {}
    done = set()
    if args.table.exists():
        with open(args.table, newline="") as file:
            done = {(row["case"], row["acquired"], row["kind"]) for row in csv.DictReader(file)}
    else:
        args.table.write_text(",".join(COLUMNS) + "\n")
    with open(args.table, "a", newline="") as file, torch.no_grad():
        writer = csv.writer(file, lineterminator="\n")
        for count, (case, number, kind) in enumerate(list(tasks(list(files), args.corruptions))[: args.limit]):
            acquisition = acquisitions[number]
            if (case, acquisition.spacing_name, kind) in done:
                continue
            if case not in volumes:
                volumes[case] = load(files[case])
            image, label = (volumes[case][key].as_tensor().float() for key in ("image", "label"))
            random = np.random.RandomState(zlib.crc32(f"{case} {acquisition.spacing_name} {kind}".encode()))
            image = torch.as_tensor(ScaleIntensity()(image))
            image, label, factor = corrupted(kind, image, label, random)
            image, label = (MetaTensor(torch.as_tensor(x).clone(), affine=torch.eye(4)) for x in (image, label))
            scan = simulate_acquisition(image, acquisition)
            header = torch.diag(torch.tensor([factor] * 3 + [1.0], dtype=scan.affine.dtype))
            scan.affine, label.affine = header @ scan.affine, header.to(label.affine.dtype) @ label.affine
            mode = "full" if count % args.full == 0 else "true"
            prediction = inferers[mode](scaling({"image": scan})["image"][None], network)
            fine = prediction["pred_fine"]
            features = fine.meta["trust"].features[""]
            match = ResampleToMatch(mode="bilinear", padding_mode="zeros")
            labels = match(fine[0].softmax(dim=0), label).argmax(dim=0, keepdim=True)
            truth = label.as_tensor()
            dice = dice_per_class(torch.as_tensor(labels), truth, NUM_CLASSES)
            volume = [int((truth == index).sum()) * factor**3 for index in range(1, NUM_CLASSES)]
            values = [features[key] for key in ("level", "spacing", "anisotropy")]
            for key in ("agreement", "confidence", "volume", "label_volume", "doubt"):
                values += features[key]
            values += [features["border"], *features.get("stability", ("", "")), *dice, *volume]
            cells = [v if isinstance(v, str) else f"{v:.4g}" for v in values]
            writer.writerow([case, kind, acquisition.spacing_name, *cells])
            file.flush()


if __name__ == "__main__":
    main()
