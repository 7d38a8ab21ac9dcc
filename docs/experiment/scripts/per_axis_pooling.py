"""Per-axis pooling, tried for docs/any_resolution.md: an axis with thick slices is not pooled until the others meet it.

    S=docs/experiment/scripts/per_axis_pooling.py
    python $S train --output_dir runs/per_axis --minutes 43
    python $S evaluate --checkpoint runs/per_axis/averaged.pt --output_dir runs/per_axis/axes
    python $S evaluate --routing volume --output_dir runs/volume  # the shipped weights
    OMP_NUM_THREADS=1 python $S cost

A scan enters at the level of its finest axis; each thicker axis is resampled to 2, 4 or 8 mm. In a stage where an axis
is thicker than the others, kernels are summed along it. On the way up it is enlarged only where it was pooled;
elsewhere a transposed convolution becomes the mean of its two output phases. The weights are those of ``RAREUNet``.
Only the head of thick slices at level 0 is new, and adds to interpolated logits. For the package, a grid with thick
axes is one more *level*: 1002 is 1×1×4 mm (exponents of 2).
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from experiment_tasks import HIPPOCAMPUS, ROOT
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.networks.utils import pixelshuffle
from monai.transforms.utils import compute_divisible_spatial_size
from monai.utils import set_determinism
from torch import nn
from torch.nn import functional as F

from rare_unet_networks.data import Acquisition
from rare_unet_networks.inferers import ResolutionRoutingInferer
from rare_unet_networks.levels import ResolutionLevels
from rare_unet_networks.networks import RAREUNet
from rare_unet_networks.networks.blocks import StackedConvBlocks
from rare_unet_networks.transforms import simulate_acquisition

CONFIGS = HIPPOCAMPUS.bundle / "configs"
OVERLAYS = ROOT / "docs/experiment/overlays"
FIRST = 1000  # the number of a grid is FIRST plus its exponents as digits
NETWORK: dict[str, Any] = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "channels": [16, 32, 64, 96, 128]}
NETWORK.update(fine_convs=1, fine_channels=[32, 96, 256])
PER_AXIS = {"network_def#_target_": "per_axis_pooling.PerAxisUNet", "levels#_target_": "per_axis_pooling.PerAxisLevels"}
SHAPES = [(1, 1, 1), (2, 2, 2), (1, 1, 3), (1, 1, 5), (1, 1, 7), (1, 1, 10), (2, 2, 5)]
SPACINGS = {shape: sorted(set(itertools.permutations(shape))) for shape in SHAPES}  # in all orientations


def exponents(level: int) -> tuple[int, ...]:
    """log2 of the voxel size of a level or grid, one per axis."""
    return (level,) * 3 if level < FIRST else tuple(int(digit) for digit in str(level - FIRST).zfill(3))


def number_of(grid: Sequence[int]) -> int:
    """Number of the grid with these exponents; that of an isotropic one is its level."""
    return grid[0] if len(set(grid)) == 1 else FIRST + int("".join(map(str, grid)))


class PerAxisLevels(ResolutionLevels):
    """Resolution levels at which each axis gets the level of its own spacing, as ``switch`` says."""

    def level_of_spacing(self, spacing: Sequence[float]) -> int:
        pairs = zip(self._checked_spacing(spacing), self.level_spacing(0))
        return number_of([self._level_of(math.log2(s / r), self.switch) for s, r in pairs])

    def scale(self, level: int) -> tuple[int, ...]:
        return tuple(2**e for e in exponents(level))

    def padded_size(self, spatial_size: Sequence[int], level: int) -> tuple[int, ...]:
        divisors = [2 ** (self.num_stages - 1 - e) for e in exponents(level)]
        return compute_divisible_spatial_size(self._checked_size(spatial_size), divisors)


class RandomGrids(PerAxisLevels):
    """Grids of a training step: some scans enter by their voxel volume, some with coarsest axes a level off."""

    volume_prob, finer_prob, coarser_prob = 0.1, 0.1, 0.15

    def level_of_spacing(self, spacing: Sequence[float]) -> int:
        by_volume, other = torch.rand(2).tolist()
        routing = ResolutionLevels if by_volume < self.volume_prob else PerAxisLevels
        grid = exponents(routing.level_of_spacing(self, spacing))
        step = -1 if other < self.finer_prob else 1 if other < self.finer_prob + self.coarser_prob else 0
        return number_of([min(max(e + step, 0), self.num_levels - 1) if e == max(grid) else e for e in grid])


def summed(weight: torch.Tensor, thick: Sequence[bool]) -> torch.Tensor:
    """A kernel summed along thick axes."""
    axes = [2 + axis for axis, is_thick in enumerate(thick) if is_thick]
    return weight.sum(axes, keepdim=True) if axes else weight


def convolve(stack: StackedConvBlocks, x: torch.Tensor, thick: Sequence[bool]) -> torch.Tensor:
    """Runs the convolutions of a stack with kernels summed along thick axes."""
    padding = [0 if is_thick else 1 for is_thick in thick]
    for block in stack:
        x = block.adn(F.conv3d(x, summed(block.conv.weight, thick), block.conv.bias, padding=padding))
    return x


def enlarge(deconv: nn.ConvTranspose3d, x: torch.Tensor, thick: Sequence[bool]) -> torch.Tensor:
    """Doubles all axes but thick ones, along which the kernel becomes the mean of its two output phases."""
    ones = [0 if is_thick else 1 for is_thick in thick]
    weight = summed(deconv.weight, thick) / 2 ** sum(thick)
    return F.conv_transpose3d(x, weight, deconv.bias, [1 + one for one in ones], ones, ones)


class PerAxisUNet(RAREUNet):
    """``RAREUNet`` for ``level`` of a grid with thick axes, too; of ``upsample="deconv"``, without dropout."""

    def __init__(self, *args: Any, thick_channels: int = 32, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        features, classes = self.heads[0].conv.in_channels, self.heads[0].conv.out_channels
        self.thick_convs = StackedConvBlocks(3, features, thick_channels, 1)
        self.thick_heads = nn.ModuleDict()  # by axis and exponent
        for axis, e in itertools.product(range(3), range(1, self.num_levels)):
            self.thick_heads[f"{axis}_{e}"] = nn.Conv3d(thick_channels, classes * 2**e, 1)
        for parameter in self.thick_heads.parameters():
            nn.init.zeros_(parameter)

    def run_path(self, x: torch.Tensor, level: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        grid, start = exponents(level), min(exponents(level))
        entrance = self.gateways[start - 1] if start else self.encoder[0]
        features = [convolve(entrance, x, [e > start for e in grid])]
        for d in range(start + 1, self.num_stages):
            pooled = F.max_pool3d(features[-1], [2 if e < d else 1 for e in grid])
            features.append(convolve(self.encoder[d], pooled, [e > d for e in grid]))
        y = features[-1]
        for d in range(self.num_stages - 2, start - 1, -1):
            i, thick = self.num_stages - 2 - d, [e > d for e in grid]
            y = enlarge(self.upsamples[i].deconv, y, thick)
            y = convolve(self.decoder[i][0], torch.cat((features[d - start], y), dim=1), thick)
        return y, features

    def _scan(self, y: torch.Tensor, level: int) -> torch.Tensor:
        return self.heads[min(exponents(level))](y)

    def _fine(self, y: torch.Tensor, level: int) -> torch.Tensor:
        grid, start = exponents(level), min(exponents(level))
        if start == 0:
            fine = self.heads[0](y)
        else:
            stack, project = self.full_heads[start - 1].conv_block
            fine = pixelshuffle(project(convolve(stack, y, [e > start for e in grid])), 3, 2**start)
        size = [n * 2**e for n, e in zip(y.shape[2:], grid)]
        fine = fine if list(fine.shape[2:]) == size else F.interpolate(fine, size, mode="trilinear")
        if sorted(grid)[:2] == [0, 0]:
            axis, e = grid.index(max(grid)), max(grid)
            more = self.thick_heads[f"{axis}_{e}"](self.thick_convs(y)).unflatten(1, (-1, 2**e))
            fine = fine + more.movedim(2, 3 + axis).flatten(2 + axis, 3 + axis)
        return fine


def run_bundle(args: argparse.Namespace, entry: str, files: Sequence[Path], options: dict[str, Any]) -> ConfigParser:
    """Runs an entry of the bundle's configs without its checks of the command line."""
    parser = ConfigParser()
    parser.read_config([str(file) for file in files])
    paths = {"dataset_dir": str(args.dataset_dir), "output_dir": str(args.output_dir)}
    paths["checkpoint"] = with_thick_heads(args.checkpoint, args.output_dir / "start.pt")
    for key, value in {"bundle_root": str(HIPPOCAMPUS.bundle), **paths, **options}.items():
        parser[key] = value
    parser.get_parsed_content(entry)
    return parser


def with_thick_heads(checkpoint: Path, target: Path) -> str:
    """File of the weights of a ``PerAxisUNet``: those of a ``RAREUNet`` get new heads for thick slices."""
    new = {name: value for name, value in PerAxisUNet(**NETWORK).state_dict().items() if name.startswith("thick_")}
    target.parent.mkdir(parents=True, exist_ok=True)
    torch.save({**new, **torch.load(checkpoint, weights_only=True)}, target)
    return str(target)


class CosineOfTime:
    """Learning rate as a cosine of the CPU or wall time spent, the further of both; as a handler it ends the run."""

    def __init__(self, cpu_minutes: float, wall_minutes: float) -> None:
        self.start, self.cpu, self.wall = time.monotonic(), 60 * cpu_minutes, 60 * wall_minutes

    def __call__(self, epoch: int) -> float:
        spent = max(time.process_time() / self.cpu, (time.monotonic() - self.start) / self.wall)
        return 0.5 + 0.5 * math.cos(math.pi * min(1.0, spent))

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: self(0) == 0 and e.terminate())


def train(args: argparse.Namespace) -> None:
    """Fine-tunes as docs/any_resolution.md does, with grids per axis, and saves the averaged weights."""
    set_determinism(seed=0)
    overlays = [OVERLAYS / "hippocampus" / name for name in ("acquisitions.json", "per_axis_pooling.json")]
    files = [CONFIGS / "train.json", CONFIGS / "finetune.json", *overlays]
    parser = run_bundle(args, "training", files, {**PER_AXIS, "minutes": args.minutes})
    torch.save(parser.get_parsed_content("averaged").state_dict(), args.output_dir / "averaged.pt")
    print(f"{parser.get_parsed_content('train#trainer').state.iteration} steps")


def evaluate(args: argparse.Namespace) -> None:
    """Scores the validation volumes and prints the mean of both classes over the orientations."""
    options = {**PER_AXIS, "acquisitions": [list(spacing) for spacing in itertools.chain(*SPACINGS.values())]}
    if args.routing == "volume":
        del options["levels#_target_"]
    files = [CONFIGS / "inference.json", CONFIGS / "evaluate.json", OVERLAYS / "acquisitions.json"]
    run_bundle(args, "evaluating", files, options)
    scores = defaultdict(list)
    for row in csv.DictReader((args.output_dir / "metrics/per_case.csv").read_text().splitlines()):
        if row["grid"] == "full":
            scores["×".join(sorted(row["spacing"].split("x"), key=float))].append(float(row["dice"]))
    print(*(f"{spacing}: {fmean(values):.4f} ({len(values)})" for spacing, values in scores.items()), sep="\n")


def cost(args: argparse.Namespace) -> None:
    """Prints CPU seconds from a scan to the logits on the 1 mm grid (medians of 7), as fractions of those at 1 mm."""
    options = {"num_levels": 4, "num_stages": 5, "spacing": (1.0,) * 3, "rule": "volume", "switch": (0.75, 0.85, 0.85)}
    crop = MetaTensor(torch.rand(1, 36, 50, 36), affine=torch.eye(4))
    kinds, reference = {RAREUNet: ResolutionLevels, PerAxisUNet: PerAxisLevels}, None
    for (shape, spacings), (kind, levels) in itertools.product(SPACINGS.items(), kinds.items()):
        inferer, network = ResolutionRoutingInferer(levels(**options), output="fine"), kind(**NETWORK).eval()
        medians = []
        for spacing in spacings:
            scan = simulate_acquisition(crop, Acquisition(spacing))[None]
            clock = [(inferer(scan, network), time.process_time())[1] for _ in range(8)]
            medians.append(median(b - a for a, b in itertools.pairwise(clock)))
        reference = reference or fmean(medians)
        print(f"{shape} {kind.__name__}: {fmean(medians) / reference:.3f} of {reference:.3f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["train", "evaluate", "cost"])
    parser.add_argument("--checkpoint", type=Path, default=HIPPOCAMPUS.bundle / "models/model.pt")
    parser.add_argument("--dataset_dir", type=Path, default=ROOT.parent / "shared/data/Task04_Hippocampus")
    parser.add_argument("--output_dir", type=Path, default=ROOT / "runs/per_axis")
    parser.add_argument("--routing", choices=["per_axis", "volume"], default="per_axis")
    parser.add_argument("--minutes", type=float, default=43.0)
    args = parser.parse_args()
    with torch.set_grad_enabled(args.command == "train"):
        {"train": train, "evaluate": evaluate, "cost": cost}[args.command](args)


if __name__ == "__main__":
    main()
