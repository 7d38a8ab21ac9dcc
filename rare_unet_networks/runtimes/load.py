"""Loads an exported network, which another runtime than eager PyTorch computes but which is called in the same way.

The files are written by ``export_runtimes``. Routing stays in the inferer, which passes the level; the program of that
level runs.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from ..levels import OUTPUTS, check_divisible, check_level
from ..networks.outputs import Prediction
from ..utils.files import read_json, sha256

__all__ = ["RUNTIMES", "LevelPrograms", "load_runtime"]

logger = logging.getLogger(__name__)
RUNTIMES = ("eager", "torchscript", "onnx", "openvino")
# Name of a level's file by runtime; TorchScript has one file for all levels, because ``level`` is an argument there.
FILES = {
    "torchscript": "network.ts",
    "onnx": "level_{}.onnx",
    "openvino": "level_{}.xml",
}
STAMP = "export.json"
Program = Callable[[torch.Tensor], Sequence[torch.Tensor]]


def optional(package: str, runtime: str) -> ModuleType:
    """Imports a package that the extra of a runtime's name installs.

    Raises:
        ModuleNotFoundError: if the package cannot be imported; the message names the extra.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise ModuleNotFoundError(
            f"runtime {runtime!r} needs the package {package} ({error}): pip install '.[{runtime}]' in the repository.",
            name=package,
        ) from None


def describe(network: nn.Module) -> dict[str, str]:
    """Identifies what a network computes, apart from its weights: the version of the code and all its modules."""
    from .. import __version__

    return {"package": __version__, "parts": hashlib.sha256(repr(network).encode()).hexdigest()}


class LevelPrograms(nn.Module):
    """Runs one program per level; called like the ``RAREUNet`` that they were exported from.

    Programs run on the CPU and take one image, so the members of a batch are computed one after the other.

    Args:
        programs: one per level, from level 0. Each takes an image of shape (1, C, *spatial_size) and returns the logits
            of its ``outputs``.
        divisors: number that every axis must be divisible by, one per level.
        outputs: ``"scan"`` (the image's grid), ``"fine"`` (the level 0 grid) or both, one tuple per level. At level 0
            the two are the same.
    """

    def __init__(self, programs: Sequence[Program], divisors: Sequence[int], outputs: Sequence[Sequence[str]]) -> None:
        super().__init__()
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
        logits_by_image = [self.programs[level](image[None]) for image in images]
        logits = {}
        for name, parts in zip(self.outputs[level], zip(*logits_by_image)):
            logits[name] = torch.cat(parts).to(x.device)
        if level == 0:  # the two grids are the same
            logits = dict.fromkeys(("scan", "fine"), *logits.values())
        if output == "both":
            return Prediction(logits["scan"], logits["fine"])
        return logits[output]


def _read_onnx(path: Path) -> Program:
    onnxruntime = optional("onnxruntime", "onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda image: [torch.from_numpy(y) for y in session.run(None, {"image": image.numpy()})]


def _read_openvino(path: Path) -> Program:
    openvino = optional("openvino", "openvino")
    # By default OpenVINO computes in bfloat16 if the CPU supports it, and logits differ by some hundredths.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)

    def program(image: torch.Tensor) -> list[torch.Tensor]:
        results = compiled([image.numpy()])
        return [torch.from_numpy(results[i]) for i in range(len(compiled.outputs))]

    return program


READERS = {"onnx": _read_onnx, "openvino": _read_openvino}


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
            return torch.jit.load(folder / FILES[runtime], map_location=device)
        levels = range(network.num_levels)
        programs = [READERS[runtime](folder / FILES[runtime].format(level)) for level in levels]
    return LevelPrograms(programs, [network.divisor(level) for level in levels], outputs)


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
            ``"openvino"`` on the CPU.
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
