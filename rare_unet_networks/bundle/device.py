"""Checks that this machine has the device of the command line."""

from __future__ import annotations

import torch

from ..cli.words import EXPRESSIONS
from ..utils.errors import one_line

__all__ = ["check_device"]


def check_device(value: str) -> None:
    """Checks that this machine has a device.

    Args:
        value: value of ``--device``; expressions are not checked.

    Raises:
        SystemExit: if it does not; the message names the device.
    """
    if value.startswith(EXPRESSIONS):
        return
    try:
        device = torch.device(value)
    except RuntimeError:
        raise SystemExit(f"error: --device must be cpu, cuda or cuda:N, got {one_line(value)}.") from None
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise SystemExit(
            f"error: --device {value}: PyTorch sees {count} GPU(s) with CUDA here; --device cpu needs none."
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise SystemExit(f"error: --device {value}: PyTorch sees no such GPU here; --device cpu needs none.")
