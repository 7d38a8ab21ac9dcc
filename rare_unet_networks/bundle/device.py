"""Whether this machine has the device that a command line asks for."""

from __future__ import annotations

import torch

from ..utils.errors import one_line

__all__ = ["check_device"]


def check_device(value: str) -> None:
    """Stops on a device that this machine does not have.

    Args:
        value: ``--device`` as written; an expression is left to the config.

    Raises:
        SystemExit: naming the device.
    """
    if value.startswith(("$", "@", "%")):
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
