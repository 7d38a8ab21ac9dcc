"""Checks of a bundle's network and weights against its metadata and its configs."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from ignite.engine import Events
from monai.bundle import ckpt_export, verify_net_in_out
from monai.bundle.scripts import _get_fake_spatial_shape

from .common import Bundle, Failed, reason

__all__ = ["check_in_out", "check_torchscript", "check_weights"]

INFERENCE = "inference.json"
# Voxels of the input on which TorchScript is compared: enough for any patch, and done in seconds on a CPU.
COMPARED = 2**20
TOLERANCE = 1e-4  # of logits, times their largest


def network_of(bundle: Bundle) -> torch.nn.Module:
    return bundle.parser(INFERENCE).get_parsed_content("network_def").cpu().eval()


def stated(bundle: Bundle, end: str) -> dict[str, Any]:
    """What the metadata says of the network's first input or output."""
    return next(iter(bundle.metadata["network_data_format"][end].values()))


def input_shape(bundle: Bundle, limit: int | None = None) -> list[int]:
    """(N, C, spatial) as stated; with a limit all axes are halved until there are not more voxels than that."""
    image = stated(bundle, "inputs")
    size = list(_get_fake_spatial_shape(image["spatial_shape"]))
    while limit and prod(size) > limit and not any(n % 2 for n in size):
        size = [n // 2 for n in size]
    return [1, image["num_channels"], *size]


def first(output: Any) -> torch.Tensor:
    """Returns the network's output, the first of several."""
    return output[0] if isinstance(output, Sequence) else output


def load(network: torch.nn.Module, bundle: Bundle) -> dict[str, torch.Tensor]:
    """Loads ``models/model.pt`` strictly.

    Raises:
        Failed: If it is not a plain state dict of the network. MONAI silently ignores tensors that do not fit, and
            MONAI Label ignores a file that is no state dict.
    """
    state = torch.load(bundle.root / "models/model.pt", map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise Failed("models/model.pt is not a plain state dict")
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise Failed(f"models/model.pt does not fit network_def: {reason(error)}") from None
    return state


def check_in_out(bundle: Bundle) -> str:
    """``monai.bundle.verify_net_in_out``: the network is run on the stated input."""
    files = dict(meta_file=bundle.config("metadata.json"), config_file=bundle.config(INFERENCE))
    verify_net_in_out(net_id="network_def", device="cpu", **files, **bundle.overridden(INFERENCE))
    return f"{input_shape(bundle)} was run"


def check_weights(bundle: Bundle) -> str:
    """The weights fit strictly, and are in the network when inference starts: compared by value."""
    state = load(network_of(bundle), bundle)
    workflow = bundle.workflow(INFERENCE, **{"dataset#data": []})
    workflow.evaluator.fire_event(Events.STARTED)  # what loads a checkpoint waits for it
    loaded = workflow.network_def.state_dict()
    other = [k for k, v in state.items() if not torch.equal(loaded[k].cpu(), v.to(loaded[k].dtype))]
    if other:
        raise Failed(f"{len(other)} of {len(state)} tensors of the started inference are not those of models/model.pt")
    numbers = sum(v.numel() for v in state.values())
    return f"{numbers:,} numbers of models/model.pt are in the network of the started inference"


def check_torchscript(bundle: Bundle) -> str:
    """``monai.bundle.ckpt_export``; the exported file predicts as the network does."""
    path = bundle.work / "model.ts"
    ckpt_export(
        net_id="network_def",
        filepath=str(path),
        ckpt_file=str(bundle.root / "models/model.pt"),
        meta_file=bundle.config("metadata.json"),
        config_file=bundle.config(INFERENCE),
        **bundle.overridden(INFERENCE),
    )
    network = network_of(bundle)
    load(network, bundle)
    files = [path, *(p for p in [bundle.root / "models/model.ts"] if p.is_file())]
    image = torch.rand(input_shape(bundle, COMPARED), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = first(network(image))
        for file in files:
            worst = float((first(torch.jit.load(str(file), map_location="cpu").eval()(image)) - expected).abs().max())
            if not worst <= TOLERANCE * max(1.0, float(expected.abs().max())):
                raise Failed(f"{file.name} differs from the network by {worst:.2g} on {list(image.shape)}")
    return f"on {list(image.shape)} it differs from the network by at most {worst:.1g}"
