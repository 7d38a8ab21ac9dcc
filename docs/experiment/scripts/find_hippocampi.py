"""How well both hippocampi are found in random scans of heads that the localiser was not trained on.

    python docs/experiment/scripts/find_hippocampi.py ../shared/data/WholeHead [--localiser localiser.pt]

Each of the ten heads is turned by up to 40° about each axis and moved by up to 60 mm in a field of view of 240 mm, 40
times. The scan has 2 to 8 mm or 2×2×5 mm; of the three fine heads also 1.4 mm or 1.4×1.4×5 mm. A fifth of the scans end
at a random plane across one of their axes. A scan shows both hippocampi whole if it holds 99 % of hippodeep's masks.
Prints a table of the docs (whole_heads.md), and with --csv writes a row for each scan.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from head_scans import Head, head_names, load_head, placed
from monai.bundle import ConfigParser
from monai.data import MetaTensor

from rare_unet_networks.data import Acquisition
from rare_unet_networks.inferers.head_regions import affine_of
from rare_unet_networks.inferers.landmarks import HIPPOCAMPI, SIDES, upright_rotation
from rare_unet_networks.transforms import simulate_acquisition
from rare_unet_networks.utils.geometry import spacing_of
from rare_unet_networks.utils.tables import write_rows

BUNDLE = Path(__file__).parents[3] / "bundles/hippocampus_mri_segmentation"
COLUMNS = ("head", "spacing", "turned", "cut", "whole", "left_mm", "right_mm", "seconds", "reasons")
EXTENT = 240.0  # mm
MAX_ANGLE, MAX_SHIFT, LIMIT = 40.0, 60.0, 6.0


def random_rotation(random: np.random.Generator) -> np.ndarray:
    rotation = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(random.uniform(-MAX_ANGLE, MAX_ANGLE, 3))):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = math.cos(angle)
        turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
        rotation = rotation @ turn
    return rotation


def turn_of(move: np.ndarray) -> float:
    """Angle in degrees by which an affine without scaling turns."""
    return float(np.rad2deg(np.arccos((np.trace(move[:3, :3]) - 1) / 2)))


def random_spacing(random: np.random.Generator, is_fine: bool) -> tuple[float, ...]:
    kind = random.choice(["iso", "thick", "fine", "fine thick"] if is_fine else ["iso", "thick"])
    if kind == "iso":
        return (float(random.uniform(2, 8)),) * 3
    if kind == "fine":
        return (1.4,) * 3
    spacing = [2.0 if kind == "thick" else 1.4] * 3
    spacing[random.integers(3)] = 5.0
    return tuple(spacing)


def random_scans(
    head: Head, count: int, random: np.random.Generator
) -> Iterator[tuple[MetaTensor, np.ndarray, tuple[float, ...], bool]]:
    """Scans of shape (1, D, H, W), the affine from the head's world to the scan's, the spacing, and if it is cut."""
    coarse = replace(head, image=simulate_acquisition(head.image, Acquisition((2.0,) * 3))) if head.is_fine else head
    for index in range(count):
        rotation, shift = random_rotation(random), random.uniform(-MAX_SHIFT, MAX_SHIFT, 3)
        spacing = random_spacing(random, head.is_fine)
        finest = min(2.0, *spacing)
        scan, move = placed(coarse if finest == 2 else head, rotation, shift, EXTENT, finest)
        scan = simulate_acquisition(scan, Acquisition(spacing))
        is_cut = index % 5 == 4
        if is_cut:
            axis = int(random.integers(3))
            n = scan.shape[1 + axis]
            at = int(random.uniform(0.25, 0.75) * n)
            part = slice(at, n) if random.random() < 0.5 else slice(0, at)
            affine = np.asarray(scan.affine).copy()
            affine[:3, 3] += affine[:3, axis] * part.start
            index_of = [slice(None)] * 4
            index_of[1 + axis] = part
            scan = MetaTensor(scan.as_tensor()[tuple(index_of)], affine=torch.from_numpy(affine))
        yield scan, move, spacing, is_cut


def format_spacing(spacing: tuple[float, ...]) -> str:
    return "x".join(f"{s:.3g}" for s in spacing)


def shows_both(head: Head, move: np.ndarray, scan: MetaTensor) -> bool:
    """Whether 99 % of each mask lie in the scan."""
    to_scan = np.linalg.inv(np.asarray(scan.affine)) @ move @ np.asarray(head.mask.affine)
    for label in (1, 2):
        voxels = nib.affines.apply_affine(to_scan, np.argwhere(head.mask[0].numpy() == label))
        inside = ((voxels >= -0.5) & (voxels <= np.array(scan.shape[1:]) - 0.5)).all(axis=1)
        if inside.mean() < 0.99:
            return False
    return True


def score(head: Head, move: np.ndarray, scan: MetaTensor, locate) -> dict[str, object]:
    """Distances of the found centres, and the reasons for a review."""
    batch = MetaTensor(scan.as_tensor()[None], affine=scan.affine)
    start = time.perf_counter()
    landmarks = locate(batch)
    seconds = time.perf_counter() - start
    spacing = torch.tensor(spacing_of(affine_of(batch), 3), dtype=torch.float64)
    high = spacing * (torch.tensor(batch.shape[2:]) - 0.5)
    places = torch.from_numpy(nib.affines.apply_affine(move, head.places))
    rotation = upright_rotation(landmarks.points, HIPPOCAMPI) if landmarks.sides() else torch.eye(3)
    row: dict[str, object] = {"seconds": seconds, "whole": shows_both(head, move, scan)}
    for i, side in enumerate(SIDES):
        row[f"{side}_mm"] = math.nan
        if side in landmarks.sides():
            centre = landmarks.centre(side, rotation, HIPPOCAMPI) / spacing
            world = affine_of(batch) @ torch.cat([centre, torch.ones(1, dtype=torch.float64)])
            row[f"{side}_mm"] = float((world[:3] - places[2 * i : 2 * i + 2].mean(dim=0)).norm())
    row["reasons"] = "; ".join(landmarks.reasons(-spacing / 2, high, HIPPOCAMPI))
    return row


def is_found(row: dict) -> bool:
    """Whether both centres lie within the limit; NaN, of a side that was not found, never does."""
    return row["left_mm"] <= LIMIT and row["right_mm"] <= LIMIT


def is_wrong(row: dict) -> bool:
    """Whether a scan counts against the localiser."""
    return not is_found(row) if row["whole"] else not row["reasons"]


def kind(spacing: str) -> str:
    """Line of the table that a spacing belongs to."""
    numbers = sorted(float(s) for s in spacing.split("x"))
    if numbers[0] != numbers[-1]:
        return "1.4×1.4×5 mm" if numbers[0] == 1.4 else "2×2×5 mm"
    return "1.4 mm" if numbers[0] == 1.4 else "2 to 4 mm" if numbers[0] < 4 else "4 to 8 mm"


def percent(part: int, whole: int) -> str:
    return f"{part} of {whole} ({100 * part / whole:.1f} %)" if whole else "–"


def table(rows: list[dict]) -> list[str]:
    """Lines of the table: by kind of spacing, and all."""
    lines = [
        "| spacing | within 6 mm | median distance | of them flagged | not whole: flagged |",
        "|---|---|---|---|---|",
    ]
    for name in ("1.4 mm", "2 to 4 mm", "4 to 8 mm", "1.4×1.4×5 mm", "2×2×5 mm", "all"):
        chosen = [row for row in rows if name in ("all", kind(row["spacing"]))]
        whole = [row for row in chosen if row["whole"]]
        rest = [row for row in chosen if not row["whole"]]
        found = [row for row in whole if is_found(row)]
        distances = [row[f"{side}_mm"] for row in found for side in SIDES]
        cells = [
            percent(len(found), len(whole)),
            f"{np.median(distances):.1f} mm" if distances else "–",
            percent(sum(bool(row["reasons"]) for row in found), len(found)),
            percent(sum(bool(row["reasons"]) for row in rest), len(rest)),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset_dir", type=Path)
    parser.add_argument("--localiser", type=Path, default=BUNDLE / "models/localiser.pt")
    parser.add_argument("--split", default="test", choices=("test", "train"))
    parser.add_argument("--per_head", type=int, default=40)
    parser.add_argument("--csv", type=Path)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = ConfigParser(ConfigParser.load_config_file(BUNDLE / "configs/inference.json"))
    config["bundle_root"], config["localiser"]["checkpoint"] = str(BUNDLE), str(args.localiser)
    locate = config.get_parsed_content("localiser")
    rows = []
    for number, name in enumerate(head_names(args.split)):
        head = load_head(args.dataset_dir, name)
        random = np.random.default_rng(number)
        for scan, move, spacing, is_cut in random_scans(head, args.per_head, random):
            row = {"head": name, "spacing": format_spacing(spacing), "turned": turn_of(move), "cut": is_cut}
            row |= score(head, move, scan, locate)
            logging.info(f"{len(rows) + 1}: {row}")
            rows.append(row)
    print("\n".join(table(rows)))
    print(f"seconds: mean {np.mean([r['seconds'] for r in rows]):.2f}, largest {max(r['seconds'] for r in rows):.2f}")
    for row in rows:
        if is_wrong(row):
            print({k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()})
    if args.csv:
        write_rows(args.csv, COLUMNS, rows)


if __name__ == "__main__":
    main()
