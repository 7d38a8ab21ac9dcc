"""Loads an exported network, which another runtime than eager PyTorch computes but which is called in the same way.

The files are written by ``export_runtimes``. Routing stays in the inferer, which passes the level; the program of that
level runs.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from ..levels import OUTPUTS, check_divisible, check_level
from ..networks.outputs import Prediction
from ..utils.files import read_json, sha256
from .programs import READERS, Program

__all__ = ["EXPORTED", "RUNTIMES", "LevelPrograms", "load_runtime", "runtime_in_words"]

logger = logging.getLogger(__name__)
EXPORTED = ("torchscript", "onnx", "openvino")
RUNTIMES = ("eager", *EXPORTED, "auto")
# Name of a level's file by runtime; TorchScript has one file for all levels, because ``level`` is an argument there.
FILES = {
    "torchscript": "network.ts",
    "onnx": "level_{}.onnx",
    "openvino": "level_{}.xml",
}
STAMP = "export.json"
PACKAGE = {"onnx": "onnxruntime", "openvino": "openvino"}  # that runs it; the others are PyTorch


def describe(network: nn.Module) -> dict[str, str]:
    """Identifies what a network computes, apart from its weights: the version of the code and all its modules."""
    from .. import __version__

    return {"package": __version__, "parts": hashlib.sha256(repr(network).encode()).hexdigest()}


def runtime_in_words(network: nn.Module) -> str:
    """What runs a network, and the version of it, such as ``"eager (torch 2.13.0)"``, for the records."""
    runtime = getattr(network, "runtime", "eager")
    package = PACKAGE.get(runtime, "torch")
    refused = getattr(network, "refused", [])
    exceptions = f", eager at level {', '.join(map(str, refused))}" if refused else ""
    return f"{runtime} ({package} {_version(package)}){exceptions}"


@cache
def _version(package: str) -> str:
    return version(package)  # it reads the package's description each time


class LevelPrograms(nn.Module):
    """Runs one program per level; called like the ``RAREUNet`` that they were exported from.

    Programs run on the CPU and take one image, so the members of a batch are computed one after the other. (A batch in
    one call takes as long.)

    Args:
        programs: one per level, from level 0. Each takes an image of shape (1, C, *spatial_size) and returns the logits
            of its ``outputs``. If it has a method ``only``, this returns a program of the named outputs alone, which
            takes less time.
        divisors: number that every axis must be divisible by, one per level.
        outputs: ``"scan"`` (the image's grid), ``"fine"`` (the level 0 grid) or both, one tuple per level. At level 0
            the two are the same.
        runtime: what runs the programs, for the records.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        divisors: Sequence[int],
        outputs: Sequence[Sequence[str]],
        runtime: str = "programs",
    ) -> None:
        super().__init__()
        self.runtime = runtime
        self.programs = tuple(programs)
        self.divisors = tuple(divisors)
        self.outputs = tuple(outputs)

    @torch.no_grad()
    def forward(self, x: torch.Tensor, level: int = 0, output: str = "scan") -> torch.Tensor | Prediction:
        """As :py:meth:`rare_unet_networks.networks.RAREUNet.forward` for an image.

        Raises:
            ValueError: if ``level`` does not exist, a size is not divisible, or the programs do not have ``output``.
        """
        check_level(level, len(self.programs))
        check_divisible(list(x.shape[2:]), level, self.divisors[level])
        if output not in OUTPUTS:
            raise ValueError(f"output must be one of {OUTPUTS}, got {output!r}.")
        grids = ("scan", "fine") if output == "both" else (output,)
        if level > 0 and not set(grids) <= set(self.outputs[level]):
            raise ValueError(
                f"output must be {self.outputs[level][0]!r}, the only one of the exported programs, got {output!r}."
            )
        images = x.to("cpu", torch.float32).contiguous()
        program, names = self.programs[level], tuple(self.outputs[level])
        if level > 0 and hasattr(program, "only"):
            names = tuple(name for name in names if name in grids)
            program = program.only(names)
        of_images = [program(image) for image in images.split(1)]
        logits: dict[str, torch.Tensor] = {}
        for name, parts in zip(names, zip(*of_images)):
            logits[name] = (parts[0] if len(parts) == 1 else torch.cat(parts)).to(x.device)
        if level == 0:  # the two grids are the same
            logits = dict.fromkeys(("scan", "fine"), *logits.values())
        if output == "both":
            return Prediction(logits["scan"], logits["fine"])
        return logits[output]


@contextmanager
def _weights_only() -> Iterator[None]:
    """Makes ``torch.load`` unpickle tensors only, in whatever library calls it."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def read(
    runtime: str,
    network: nn.Module,
    folder: Path,
    outputs: Sequence[Sequence[str]],
    device: str | torch.device = "cpu",
) -> nn.Module:
    """Loads the network from the files in ``folder`` without checking its weights, see :py:func:`load_runtime`."""
    with _weights_only():
        if runtime == "torchscript":
            scripted = torch.jit.load(folder / FILES[runtime], map_location=device)
            scripted.runtime = runtime
            return scripted
        levels = range(network.num_levels)
        programs = [READERS[runtime](folder / FILES[runtime].format(level), outputs[level]) for level in levels]
    return LevelPrograms(programs, [network.divisor(level) for level in levels], outputs, runtime)


def load_runtime(
    runtime: str,
    network: nn.Module,
    export_dir: str | Path,
    checkpoint: str | Path,
    device: str | torch.device = "cpu",
) -> nn.Module:
    """Loads the network for a runtime; it is called as ``network(x, level=level, output=output)``.

    Args:
        runtime: ``"eager"`` is ``network`` itself. ``"torchscript"`` runs on ``device``, ``"onnx"`` (ONNX Runtime) and
            ``"openvino"`` on the CPU. ``"auto"`` is :py:class:`rare_unet_networks.runtimes.AutoRuntime`.
        network: a :py:class:`rare_unet_networks.networks.RAREUNet`.
        export_dir: folder that ``export_runtimes`` wrote to; not used for eager.
        checkpoint: weights that the export must have.
        device: device of the network.

    Raises:
        ValueError: if the runtime is unknown, or the export is missing, incomplete, or of other weights or another
            network.
        ModuleNotFoundError: if the runtime's package is missing.
    """
    if runtime not in RUNTIMES:
        raise ValueError(f"runtime must be one of {RUNTIMES}, got {runtime!r}.")
    if runtime == "eager":
        return network.to(device)
    if runtime == "auto":
        from .auto import AutoRuntime  # it exports, with the functions of a module that imports this one

        return AutoRuntime(network, export_dir, checkpoint, device)
    folder = Path(export_dir) / runtime
    paths = f"--checkpoint {Path(checkpoint).absolute()} --export_dir {Path(export_dir).absolute()}"
    command = "run exporting --config_file \"['configs/inference.json','configs/export.json']\""
    again = f"in the bundle's folder, `{command} --runtime {runtime} {paths}` writes it"
    if not (folder / STAMP).exists():
        raise ValueError(f"export_dir must hold the network for runtime {runtime!r}, {folder} does not: {again}.")
    stamp = read_json(folder / STAMP)
    if not isinstance(stamp, dict) or not {"checkpoint", "outputs", "files"} <= stamp.keys():
        raise ValueError(f"{folder / STAMP} must describe an export, it does not: {again}.")
    if stamp["checkpoint"] != sha256(checkpoint):
        raise ValueError(f"the export in {folder} is not of the weights in {checkpoint}: {again}.")
    if stamp.get("network") != describe(network):
        raise ValueError(f"the export in {folder} is of another network, or of another version of its code: {again}.")
    changed = [n for n, known in stamp["files"].items() if not (folder / n).exists() or sha256(folder / n) != known]
    if changed:
        raise ValueError(f"the export in {folder} is not as it was written ({', '.join(changed)}): {again}.")
    logger.info(f"runtime {runtime}: {folder}, of the weights in {checkpoint}")
    return read(runtime, network, folder, stamp["outputs"], device)
