"""Exports a network to other runtimes: one program per level, for any spatial size, so that routing still works."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from ..levels import OUTPUTS
from ..networks.weights import load_weights
from ..utils.files import sha256, write_text
from .load import EXPORTED, FILES, STAMP, describe, read
from .programs import optional

__all__ = ["LevelPath", "export_runtimes"]

logger = logging.getLogger(__name__)
# Packages that an export needs besides torch; their versions are stored.
PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino", "onnx", "onnxscript")}
# Largest accepted difference between logits of an export and of eager; in a correct export it is a few millionths.
TOLERANCE = 1e-3


class LevelPath(nn.Module):
    """One level of a network, as a module with an image as its only input, which exporters require.

    Shapes: (1, C, *spatial_size) → the logits of ``outputs``, in that order.

    Args:
        network: a :py:class:`rare_unet_networks.networks.RAREUNet`.
        level: level at which the image enters.
        output: ``"scan"`` for the logits on the image's grid, ``"fine"`` for those on the level 0 grid, or ``"both"``.
            At level 0 they are the same. A network without ``fine_convs`` has those on the image's grid only.

    Raises:
        ValueError: if ``output`` is unknown, or the network does not have it.
    """

    def __init__(self, network: nn.Module, level: int, output: str = "both") -> None:
        super().__init__()
        has_fine = len(network.full_heads) > 0
        if output not in OUTPUTS:
            raise ValueError(f"output must be one of {OUTPUTS}, got {output!r}.")
        if output == "fine" and not has_fine:
            raise ValueError("output must be 'scan' or 'both' for a network without fine_convs, got 'fine'.")
        self.network = network
        self.level = level
        self.outputs = ("scan", "fine") if output == "both" else (output,)
        if level == 0 or not has_fine:
            self.outputs = self.outputs[:1]

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if len(self.outputs) == 2:
            scan, fine = self.network(image, level=self.level, output="both")
            return scan, fine
        return (self.network(image, level=self.level, output=self.outputs[0]),)

    def example(self, *blocks: int) -> torch.Tensor:
        """Random image with the given number of blocks (of the level's divisor) along each axis of the network."""
        weight = next(self.network.encoder.parameters())  # (features, C, kernel)
        k = self.network.divisor(self.level)
        return torch.rand(1, weight.shape[1], *(k * n for n in blocks[: weight.ndim - 2]))


def _program(path: LevelPath) -> ExportedProgram:
    image, k = path.example(2, 3, 4), path.network.divisor(path.level)
    sizes = {2 + i: k * Dim(f"blocks_{i}", min=1) for i in range(image.ndim - 2)}
    return torch.export.export(path, (image,), dynamic_shapes={"image": sizes})


def _write_onnx(program: ExportedProgram, outputs: Sequence[str], file: Path) -> None:
    options = dict(input_names=["image"], output_names=list(outputs), external_data=False, verbose=False)
    torch.onnx.export(program, f=file, dynamo=True, **options)


def _write_openvino(program: ExportedProgram, outputs: Sequence[str], file: Path) -> None:
    openvino = optional("openvino", "openvino")
    with tempfile.TemporaryDirectory() as folder:
        onnx_file = Path(folder) / "level.onnx"
        _write_onnx(program, outputs, onnx_file)
        # Not convert_model, which by default sends usage statistics to its developers.
        openvino.save_model(openvino.Core().read_model(str(onnx_file)), str(file), compress_to_fp16=False)


WRITERS: dict[str, Callable[[ExportedProgram, Sequence[str], Path], None]] = {
    "onnx": _write_onnx,
    "openvino": _write_openvino,
}


def _check(name: str, exported: nn.Module, path: LevelPath, tolerance: float = TOLERANCE) -> None:
    """Compares the logits of an export with those of the network, for images with and without an axis of one block.

    Raises:
        RuntimeError: if they differ by more than ``tolerance``.
    """
    differences = []
    with torch.no_grad():
        for image in (path.example(1, 2, 3), path.example(2, 2, 2)):
            for output, logits in zip(path.outputs, path(image)):
                differences.append(float((exported(image, level=path.level, output=output) - logits).abs().max()))
    worst = float(torch.tensor(differences).max())  # NaN if one is NaN; Python's max may ignore it
    if not worst <= tolerance:
        raise RuntimeError(
            f"the export for runtime {name!r} must give the logits of eager to {tolerance:g}, at level {path.level} "
            f"they differ by {worst:g}."
        )
    logger.info(f"runtime {name}, level {path.level}: logits differ from those of eager by {worst:.1g}")


def export_runtimes(
    runtime: str,
    network: nn.Module,
    export_dir: str | Path,
    checkpoint: str | Path,
    output: str = "both",
    tolerance: float = TOLERANCE,
) -> None:
    """Exports a network to ``export_dir/<runtime>``, for :py:func:`rare_unet_networks.runtimes.load_runtime`.

    The logits of each level are compared with those of eager. Only then is ``export.json`` written, with the digests of
    the checkpoint and the files and a description of the network. An export without this file is not used.

    Args:
        runtime: one of :py:data:`rare_unet_networks.runtimes.RUNTIMES` that has files, or ``"all"``.
        network: a :py:class:`rare_unet_networks.networks.RAREUNet` on the CPU.
        export_dir: folder of the exports, created if it does not exist.
        checkpoint: weights, in a form that :py:func:`rare_unet_networks.networks.load_weights` accepts.
        output: output of a program, see :py:class:`LevelPath`. One output takes less time than both. In TorchScript it
            is an argument of the program, so all outputs are always exported.
        tolerance: largest accepted difference of a logit.

    Raises:
        ValueError: if the runtime is unknown or needs no export, the network does not have the output, or the
            weights cannot be used.
        ModuleNotFoundError: if a package that the export needs is missing.
        RuntimeError: if the logits of an export differ from those of eager.
    """
    if runtime not in (*EXPORTED, "all"):
        raise ValueError(f"runtime must be one of {(*EXPORTED, 'all')} to be exported, got {runtime!r}.")
    names = EXPORTED if runtime == "all" else (runtime,)
    for name in names:
        for package in PACKAGES.get(name, ()):
            optional(package, name)
    paths = [LevelPath(network, level, output) for level in range(network.num_levels)]
    load_weights(checkpoint, network, map_location="cpu")
    network.eval()
    programs = [] if names == ("torchscript",) else [_program(path) for path in paths]
    for name in names:
        folder = Path(export_dir) / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / STAMP).unlink(missing_ok=True)
        if name == "torchscript":
            torch.jit.save(torch.jit.script(network), folder / FILES[name])
        else:
            for path, program in zip(paths, programs):
                WRITERS[name](program, path.outputs, folder / FILES[name].format(path.level))
        outputs = [path.outputs for path in paths]
        exported = read(name, network, folder, outputs)
        for path in paths:
            _check(name, exported, path, tolerance)
        _stamp(name, network, outputs, folder, checkpoint)


def _stamp(
    name: str, network: nn.Module, outputs: Sequence[Sequence[str]], folder: Path, checkpoint: str | Path
) -> None:
    """Writes ``export.json``, which identifies network, weights and files; ``load_runtime`` checks it."""
    # Without hidden files: a killed export can leave a temporary one.
    files = sorted(p for p in folder.iterdir() if p.name != STAMP and not p.name.startswith("."))
    stamp = {
        "checkpoint": sha256(checkpoint),
        "network": describe(network),
        "outputs": outputs,
        "files": {p.name: sha256(p) for p in files},
        "versions": {package: version(package) for package in ("torch", *PACKAGES.get(name, ()))},
    }
    write_text(folder / STAMP, json.dumps(stamp, indent=4) + "\n")
    logger.info(f"runtime {name}: {sum(p.stat().st_size for p in files) / 1e6:.1f} MB in {folder}")
