"""How well both hippocampi are found by registration to ICBM 152, beside the localiser, in the same random scans.

    pip install picsl-greedy SimpleITK
    python docs/experiment/scripts/register_hippocampi.py ../shared/data/WholeHead --per_head 10

The scans are those of ``find_hippocampi.py``. Greedy (affine, 12 parameters) searches rotations and shifts at random,
then optimises at 8, 4 and 2 mm. The places in ICBM 152 are those that the localiser finds there. Prints the table of
docs/whole_heads.md.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
import torch
from find_hippocampi import BUNDLE, LIMIT, random_scans, score, shows_both, turn_of
from head_scans import Head, head_names, load_head
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from picsl_greedy import Greedy3D
from register_modalities import as_itk

from rare_unet_networks.data import Acquisition
from rare_unet_networks.inferers.landmarks import SIDES
from rare_unet_networks.transforms import simulate_acquisition

TEMPLATE = BUNDLE / "sample/heads/icbm152_head_1mm.nii.gz"
SEARCH = "-search 1000 40 40"  # starts, standard deviation of the rotation in degrees and of the shift in mm


def register(scan: MetaTensor, template: sitk.Image, cost: str) -> np.ndarray:
    """The affine from the template's world (RAS) to the scan's."""
    greedy = Greedy3D()
    greedy.execute(
        f"-d 3 -a -dof 12 -i fixed moving -ia-image-centers {SEARCH} -n 60x40x20 -m {cost} -threads 1 -o affine",
        fixed=template, moving=as_itk(scan), affine=None,
    )  # fmt: skip
    return np.asarray(greedy["affine"])


def distances(head: Head, move: np.ndarray, affine: np.ndarray, places: np.ndarray) -> list[float]:
    """Distance in mm of both centres in the scan from those of hippodeep's masks."""
    truth = nib.affines.apply_affine(move, head.places)
    found = nib.affines.apply_affine(affine, places)
    return [float(np.linalg.norm(found[i] - truth[2 * i : 2 * i + 2].mean(axis=0))) for i in range(len(SIDES))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset_dir", type=Path)
    parser.add_argument("--per_head", type=int, default=10)
    parser.add_argument("--cost", default="NCC 2x2x2", help="Greedy's measure of similarity")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = ConfigParser(ConfigParser.load_config_file(BUNDLE / "configs/inference.json"))
    config["bundle_root"] = str(BUNDLE)
    locate = config.get_parsed_content("localiser")
    volume = nib.load(TEMPLATE)
    template = MetaTensor(torch.from_numpy(volume.get_fdata(dtype=np.float32))[None], affine=volume.affine)
    found = locate(MetaTensor(template.as_tensor()[None], affine=template.affine)).points.numpy()
    spacing = np.linalg.norm(volume.affine[:3, :3], axis=0)
    points = nib.affines.apply_affine(volume.affine, found / spacing)
    places = points.reshape(2, 2, 3).mean(axis=1)
    coarse = as_itk(simulate_acquisition(template, Acquisition((2.0,) * 3)))
    rows = []
    for number, name in enumerate(head_names("test")):
        head = load_head(args.dataset_dir, name)
        random = np.random.default_rng(number)
        for scan, move, _, is_cut in random_scans(head, args.per_head, random):
            if is_cut or not shows_both(head, move, scan):
                continue
            start = time.process_time()
            by_registration = distances(head, move, register(scan, coarse, args.cost), places)
            seconds = time.process_time() - start
            row = score(head, move, scan, locate)
            turned = turn_of(move)
            rows.append((turned, max(by_registration), max(row[f"{side}_mm"] for side in SIDES), seconds))
            logging.info(f"{name}: turned {turned:.0f} degrees, {rows[-1][1]:.1f} and {rows[-1][2]:.1f} mm")
    print("| turned by | registration: within 6 mm | median distance | localiser: within 6 mm | median distance |")
    print("|---|---|---|---|---|")
    for low, high in ((0, 25), (25, 45), (45, 180)):
        chosen = np.array([row for row in rows if low <= row[0] < high])
        if len(chosen):
            cells = [f"{low} to {high}°"]
            for column in (1, 2):
                cells += [f"{int((chosen[:, column] <= LIMIT).sum())} of {len(chosen)}"]
                cells += [f"{np.median(chosen[:, column]):.1f} mm"]
            print(f"| {' | '.join(cells)} |")
    print(f"CPU seconds of a registration: median {np.median([row[3] for row in rows]):.1f}")


if __name__ == "__main__":
    main()
