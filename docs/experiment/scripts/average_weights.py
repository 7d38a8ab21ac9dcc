"""Averages the weights of networks that were trained on from the same weights, and saves them as float16.

Wortsman et al. 2022, "Model soups": the mean of two such networks is often better than either.

    python docs/experiment/scripts/average_weights.py a.pt b.pt --output mean.pt
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch


def average(files: list[Path]) -> dict[str, torch.Tensor]:
    """Mean of each tensor over the files.

    Raises:
        ValueError: if the files do not hold the same tensors.
    """
    states = [torch.load(file, map_location="cpu", weights_only=True) for file in files]
    mean = {}
    for name, first in states[0].items():
        for file, state in zip(files, states):
            if state.keys() != states[0].keys() or state[name].shape != first.shape:
                raise ValueError(f"{file} must hold the same tensors as {files[0]}, {name} differs.")
        mean[name] = torch.stack([state[name].float() for state in states]).mean(dim=0).half()
    return mean


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help="weights, as run training saves them")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    torch.save(average(args.files), args.output)
    print(args.output)


if __name__ == "__main__":
    main()
