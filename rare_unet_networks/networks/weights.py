"""Loads weights, and says what is wrong with a file that is damaged, of another kind or of another network."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..data.files import describe_content
from ..utils.errors import root_cause
from ..utils.geometry import format_size

__all__ = ["check_archive", "load_weights"]

WRAPPERS = ("model", "state_dict", "model_state_dict", "network", "net")  # entries that hold the weights in a file
PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and averaged models, and of torch.compile
TRAINING = ("optimizer", "trainer")  # entries of the state of a training
MAX_NAMES = 3  # names in a message


def _read(path: Path, map_location: Any) -> Any:
    """Reads a file of ``torch.save``.

    Raises:
        ValueError: if it is another kind of file; the message says which.
    """
    if not path.exists():
        raise ValueError("there is no such file")
    if path.is_dir():
        raise ValueError("expected a file, got a folder")
    with open(path, "rb") as file:
        head = file.read(132)
    if not head.startswith((b"PK", b"\x80")):
        what = describe_content(head)
        raise ValueError(f"expected weights as torch.save writes them, the file is {what}")
    if head.startswith(b"PK"):
        check_archive(path)
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # the unpickler can raise any exception on a damaged file
        # PyTorch's own message suggests weights_only=False, which would run code from the file.
        if "weights_only" in str(error) or "Unsupported" in str(error):
            what = "the file holds Python objects besides tensors and is not loaded: save a state_dict"
            raise ValueError(what) from None
        raise ValueError(f"the file is damaged or cut ({type(error).__name__})") from None


def check_archive(path: Path) -> None:
    """Checks the checksums of a file of ``torch.save``, which PyTorch does not: a flipped bit would be a wrong weight.

    Raises:
        ValueError: if the archive is damaged or holds something else than weights.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, RuntimeError):
        raise ValueError("the file is damaged or cut") from None
    if damaged is not None:
        raise ValueError(f"the file is damaged: {damaged} has another checksum than was stored with it")
    if any(name.endswith("/constants.pkl") for name in names):
        raise ValueError("expected weights, the file is a TorchScript program")
    if not any(name.endswith("data.pkl") for name in names):
        raise ValueError("expected weights as torch.save writes them, the file is a zip archive of something else")


def _state_dict(content: Any) -> dict[str, torch.Tensor]:
    """Gets the tensors by name from the content of a file, without wrappers and prefixes that some programs add.

    Raises:
        ValueError: if there are none.
    """
    if isinstance(content, Mapping) and any(name in content for name in TRAINING):
        raise ValueError(
            "the file is the state of a training, to resume it; its best weights are in model.pt of its output_dir"
        )
    if isinstance(content, Mapping):
        content = next((content[name] for name in WRAPPERS if isinstance(content.get(name), Mapping)), content)
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"expected tensors by name, the file holds a {type(content).__name__}")
    state = dict(content)
    for prefix in PREFIXES * 2:  # twice, because they can be in either order
        others = {name for name in state if not str(name).startswith(prefix)}
        if others <= {"n_averaged"}:  # the counter of an averaged model
            state = {name.removeprefix(prefix): value for name, value in state.items() if name not in others}
    wrong = [str(name) for name, value in state.items() if not isinstance(value, torch.Tensor)]
    if wrong:
        raise ValueError(f"expected tensors by name, {_some(wrong)} of the file is none")
    return state


def _some(names: Sequence[str]) -> str:
    more = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


def _is_like(value: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether a tensor keeps its values in place of a weight: integers and complex numbers would lose a part."""
    is_dense = value.layout == torch.strided and not value.is_meta and not value.is_quantized
    return is_dense and (value.is_floating_point() or value.dtype == weight.dtype)


def _check_fit(state: Mapping[str, torch.Tensor], network: nn.Module) -> None:
    """Raises a ``ValueError`` if names, shapes or kinds are not those of the network, or a weight is not finite."""
    expected = network.state_dict()
    faults = []
    if missing := [name for name in expected if name not in state]:
        faults.append(f"{len(missing)} of {len(expected)} weights are missing ({_some(missing)})")
    if unknown := [name for name in state if name not in expected]:
        faults.append(f"{len(unknown)} are not the network's ({_some(unknown)})")
    reshaped = [n for n, value in state.items() if n in expected and value.shape != expected[n].shape]
    if reshaped:
        first = reshaped[0]
        sizes = f"{format_size(state[first].shape)} for {format_size(expected[first].shape)}"
        faults.append(f"{len(reshaped)} have another size ({first}: {sizes})")
    if faults:
        raise ValueError(f"the weights are of another network: {'; '.join(faults)}")
    unlike = [name for name, value in state.items() if not _is_like(value, expected[name])]
    if unlike:
        kind = str(state[unlike[0]].dtype).removeprefix("torch.")
        raise ValueError(f"{len(unlike)} are no dense tensors of real numbers ({_some(unlike)}; the first is {kind})")
    if not_finite := [name for name, value in state.items() if not torch.isfinite(value).all()]:
        raise ValueError(f"{len(not_finite)} weights are NaN or infinite ({_some(not_finite)})")


def load_weights(path: str | Path, network: nn.Module, map_location: Any = None) -> None:
    """Loads weights from a file of ``torch.save`` into a network.

    The file can hold a plain ``state_dict``, or one under the key ``"model"``, ``"state_dict"``,
    ``"model_state_dict"``, ``"network"`` or ``"net"``. Its names can begin with ``module.`` (of ``DataParallel`` and of
    averaged models), with ``_orig_mod.`` (of ``torch.compile``) or with both, and it can hold ``n_averaged``, the
    counter of an averaged model, which is ignored. No code from the file is executed.

    Args:
        path: the file.
        network: network that the weights belong to.
        map_location: device to load tensors to, as in ``torch.load``.

    Raises:
        ValueError: if the file is missing, of another kind, damaged, or of another network; the message names the file.
    """
    if isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel):
        network = network.module
    try:
        state = _state_dict(_read(Path(path), map_location))
        _check_fit(state, network)
    except ValueError as error:
        raise ValueError(f"{path}: {root_cause(error)}") from None
    network.load_state_dict(state)
