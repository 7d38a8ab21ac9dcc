"""Trains the localiser: a small RARE-UNet that sees a whole head at 4 or 8 mm and gives the places of both hippocampi.

    python docs/experiment/scripts/train_localiser.py heads.npz localiser.pt [--device cuda] [--minutes 8]

``heads.npz`` is made by ``pack_heads.py``. Each step makes a batch of random scans of the heads on the device
(``random_heads.py``) and trains both levels on it. The network has a channel per place. A channel's softmax runs over
the voxels of the scan and one more cell of logit 0, which stands for "not in this scan". The target is a blob around
the place, or that cell. The learning rate falls as a cosine of the time spent; averaged weights are saved.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from pathlib import Path

import numpy as np
import torch
from random_heads import PLACES, VOXEL, RandomHeads
from torch.nn import functional as F

from rare_unet_networks.networks import RAREUNet

NETWORK = {
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": len(PLACES),
    "channels": [16, 32, 48, 64, 64],
    "num_gateways": 1,
    "fine_convs": 1,
    "fine_channels": [32],
}
BLOB = 5.0  # standard deviation of the target in mm
AVERAGING = 0.998  # momentum of the averaged weights
RADIUS = 12.0  # mm around the peak over which a place is averaged


def blobs(places: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Normalised target of each place over the voxels in view, shape (B, places, *size); NaN places give any map."""
    axes = [(torch.arange(n, device=places.device) - (n - 1) / 2) * VOXEL for n in inside.shape[2:]]
    squares = [
        ((axis - places[..., i, None]) ** 2)
        .nan_to_num()
        .reshape(*places.shape[:2], *[-1 if j == i else 1 for j in range(3)])
        for i, axis in enumerate(axes)
    ]
    blob = torch.exp(-(squares[0] + squares[1] + squares[2]) / (2 * BLOB**2)) * inside
    return blob / blob.sum(dim=(2, 3, 4), keepdim=True).clamp(min=1e-12)


def log_softmax(logits: torch.Tensor, inside: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log probabilities of the voxels, shape (B, places, voxels), and of the cell "not in this scan" (B, places)."""
    flat = logits.float().masked_fill(~inside, -1e4).flatten(2)
    flat = F.pad(flat, (0, 1)).log_softmax(dim=2)
    return flat[..., :-1], flat[..., -1]


def place_loss(logits: torch.Tensor, target: torch.Tensor, present: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy over all places."""
    voxels, absent = log_softmax(logits, inside)
    return -torch.where(present, (target.flatten(2) * voxels).sum(dim=2), absent).mean()


@torch.no_grad()
def errors(logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Distances in mm of the places in view, and whether each presence is right."""
    voxels, absent = log_softmax(logits, batch["inside"])
    size = logits.shape[2:]
    mesh = torch.meshgrid(*((torch.arange(n, device=logits.device) - (n - 1) / 2) * VOXEL for n in size), indexing="ij")
    points = torch.stack(mesh, dim=-1).reshape(-1, 3)
    peak = points[voxels.argmax(dim=2)]
    near = (points[None, None] - peak[:, :, None]).norm(dim=-1) < RADIUS
    weights = voxels.exp() * near
    found = weights @ points / weights.sum(dim=2, keepdim=True)
    distances = (found - batch["places"]).norm(dim=-1)[batch["present"]]
    return distances, (absent.exp() < 0.5) == batch["present"]


def train(args: argparse.Namespace) -> None:
    device = torch.device(args.device)
    torch.manual_seed(args.seed)
    np.random.seed(args.seed)
    heads = RandomHeads(args.heads, device)
    network = RAREUNet(**NETWORK).to(device)
    average = RAREUNet(**NETWORK).to(device)
    average.load_state_dict(network.state_dict())
    logging.info(f"{sum(p.numel() for p in network.parameters()):,} weights, {len(heads.names)} heads")
    optimizer = torch.optim.AdamW(network.parameters(), lr=args.learning_rate, weight_decay=1e-4)
    start = saved = time.monotonic()
    total, step, losses, distances, rights = args.minutes * 60, 0, [], [], []
    while (spent := time.monotonic() - start) < total:
        warm_up = min(1.0, (step + 1) / 50)
        for group in optimizer.param_groups:
            group["lr"] = args.learning_rate * warm_up * (0.5 + 0.5 * math.cos(math.pi * spent / total))
        batch = heads.batch(args.batch_size)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            fine = network(batch["image"], level=0)
            coarse, coarse_fine = network(batch["coarse"], level=1, output="both")
        target = blobs(batch["places"], batch["inside"])
        loss = place_loss(fine, target, batch["present"], batch["inside"])
        loss = loss + 0.5 * place_loss(coarse_fine, target, batch["present"], batch["inside"])
        inside = F.max_pool3d(batch["inside"].float(), 2) > 0
        loss = loss + 0.1 * place_loss(coarse, 8 * F.avg_pool3d(target, 2), batch["present"], inside)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        if torch.isfinite(norm):
            optimizer.step()
        momentum = min(AVERAGING, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, weight in zip(average.parameters(), network.parameters()):
                mean.lerp_(weight, 1 - momentum)
        step += 1
        losses.append(loss.detach())
        if step % args.log_every == 0:
            for logits in (fine, coarse_fine):
                distance, right = errors(logits, batch)
                distances.append(distance)
                rights.append(right.float().mean())
            pooled = torch.cat(distances[-40:])
            minutes = (time.monotonic() - start) / 60
            logging.info(
                f"{minutes:.2f} min, step {step}: loss {torch.stack(losses).mean():.3f}, median distance "
                f"{pooled.median() if len(pooled) else math.nan:.1f} mm, over 6 mm "
                f"{(pooled > 6).float().mean():.3f}, presence right {torch.stack(rights[-40:]).mean():.3f}"
            )
            losses = []
        if time.monotonic() - saved > 60:
            saved = time.monotonic()
            save(average, args.output)
    save(average, args.output)
    logging.info(f"{args.output}: {step} steps, {args.output.stat().st_size / 2**20:.1f} MiB")


def save(network: RAREUNet, path: Path) -> None:
    """Writes the weights in half precision."""
    weights = {key: value.detach().cpu().half() for key, value in network.state_dict().items()}
    temporary = path.with_name(path.name + ".tmp")
    torch.save(weights, temporary)
    temporary.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("heads", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log_every", type=int, default=50)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.info(json.dumps({key: str(value) for key, value in vars(args).items()}))
    train(args)


if __name__ == "__main__":
    main()
