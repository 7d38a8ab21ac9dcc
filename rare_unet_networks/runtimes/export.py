"""Exports of a network that keep its routing: one program per level, of any spatial size."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from ignite.engine import Engine
from monai.handlers import CheckpointLoader
from torch import nn
from torch.export import Dim, ExportedProgram

from .load import ENGINES, FILES, STAMP, network_digest, optional, read, sha256

__all__ = ["LevelPath", "export_engines"]

logger = logging.getLogger(__name__)
EXPORTED = ENGINES[1:]
# What writing needs besides torch; its versions are noted.
PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino", "onnx", "onnxscript")}
# Logits of an export may be off those of eager by this; those of a right one are by some millionths.
TOLERANCE = 1e-3


class LevelPath(nn.Module):
    """One level of a network as a module of one image, without arguments: what the exporters can take.

    Shapes: (1, C, *spatial_size) → the logits on that grid and, above level 0 of a network with ``fine_convs``, those
    on the level 0 grid.

    Args:
        network: a :py:class:`rare_unet_networks.networks.RAREUNet`.
        level: the level entered.
    """

    def __init__(self, network: nn.Module, level: int) -> None:
        super().__init__()
        self.network = network
        self.level = level

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self.level > 0 and len(self.network.full_heads):
            scan, fine = self.network(image, level=self.level, output="both")
            return scan, fine
        return (self.network(image, level=self.level),)

    def example(self, *blocks: int) -> torch.Tensor:
        """An image of as many blocks of the level's divisor along each axis, as far as there are axes."""
        weight = next(self.network.encoder.parameters())  # (features, C, kernel)
        k = self.network.divisor(self.level)
        return torch.rand(1, weight.shape[1], *(k * n for n in blocks[: weight.ndim - 2]))


def _program(path: LevelPath) -> ExportedProgram:
    image, k = path.example(2, 3, 4), path.network.divisor(path.level)
    sizes = {2 + i: k * Dim(f"blocks_{i}", min=1) for i in range(image.ndim - 2)}
    return torch.export.export(path, (image,), dynamic_shapes={"image": sizes})


def _write_export(program: ExportedProgram, file: Path) -> None:
    torch.export.save(program, file)


def _write_aotinductor(program: ExportedProgram, file: Path) -> None:
    torch._inductor.aoti_compile_and_package(program, package_path=str(file))


def _write_onnx(program: ExportedProgram, file: Path) -> None:
    names = ["scan", "fine"][: len(program.graph_signature.user_outputs)]
    options = dict(input_names=["image"], output_names=names, external_data=False, verbose=False)
    torch.onnx.export(program, f=file, dynamo=True, **options)


def _write_openvino(program: ExportedProgram, file: Path) -> None:
    openvino = optional("openvino", "openvino")
    with tempfile.TemporaryDirectory() as folder:
        onnx_file = Path(folder) / "level.onnx"
        _write_onnx(program, onnx_file)
        # read_model, not convert_model, which reports its use to the makers unless they are told not to.
        openvino.save_model(openvino.Core().read_model(str(onnx_file)), str(file), compress_to_fp16=False)


WRITERS: dict[str, Callable[[ExportedProgram, Path], None]] = {
    "export": _write_export,
    "aotinductor": _write_aotinductor,
    "onnx": _write_onnx,
    "openvino": _write_openvino,
}


def _check(name: str, exported: nn.Module, path: LevelPath) -> None:
    """Compares the logits for images with and without an axis of a single block."""
    found = []
    with torch.no_grad():
        for image in (path.example(1, 2, 3), path.example(2, 2, 2)):
            for output, logits in zip(("scan", "fine"), path(image)):
                found.append(float((exported(image, level=path.level, output=output) - logits).abs().max()))
    worst = float(torch.tensor(found).max())  # NaN if any is, which Python's max passes over
    if not worst <= TOLERANCE:
        raise RuntimeError(
            f"the export for engine {name!r} must give the logits of eager to {TOLERANCE:g}, at level {path.level} "
            f"they differ by {worst:g}."
        )
    logger.info(f"engine {name}, level {path.level}: logits differ from those of eager by {worst:.1g}")


def export_engines(engine: str, network: nn.Module, export_dir: str | Path, checkpoint: str | Path) -> None:
    """Writes a network to ``export_dir/<engine>``, to be run by :py:func:`rare_unet_networks.runtimes.with_engine`.

    Each level is compared with eager before ``export.json``, without which no export is used, is written: the
    digests of the checkpoint, the network and the files.

    Args:
        engine: one of :py:data:`rare_unet_networks.runtimes.ENGINES` but ``"eager"``, or ``"all"``.
        network: a :py:class:`rare_unet_networks.networks.RAREUNet` on the CPU.
        export_dir: made if it is not there.
        checkpoint: weights, as ``CheckpointLoader`` takes them.

    Raises:
        ValueError: on an engine for which there is nothing to export.
        ModuleNotFoundError: when a package that the export needs is missing.
        RuntimeError: when an export's logits differ from those of eager.
    """
    if engine not in (*EXPORTED, "all"):
        raise ValueError(f"engine must be one of {(*EXPORTED, 'all')} to be exported, got {engine!r}.")
    engines = EXPORTED if engine == "all" else (engine,)
    for name in engines:
        for package in PACKAGES.get(name, ()):
            optional(package, name)
    CheckpointLoader(str(checkpoint), {"model": network}, map_location="cpu")(Engine(lambda engine, batch: None))
    network.eval()
    paths = [LevelPath(network, level) for level in range(network.num_levels)]
    programs = [] if engines == ("torchscript",) else [_program(path) for path in paths]
    for name in engines:
        folder = Path(export_dir) / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / STAMP).unlink(missing_ok=True)
        if name == "torchscript":
            torch.jit.save(torch.jit.script(network), folder / FILES[name])
        else:
            for level, program in enumerate(programs):
                WRITERS[name](program, folder / FILES[name].format(level))
        exported = read(name, network, folder)
        for path in paths:
            _check(name, exported, path)
        _stamp(name, network, folder, checkpoint)


def _stamp(name: str, network: nn.Module, folder: Path, checkpoint: str | Path) -> None:
    """Notes of which network and weights the files are, and what they hold: ``with_engine`` asks for it."""
    files = sorted(p for p in folder.iterdir() if p.name != STAMP)
    stamp = {
        "checkpoint": sha256(checkpoint),
        "network": network_digest(network),
        "files": {p.name: sha256(p) for p in files},
        "versions": {package: version(package) for package in ("torch", *PACKAGES.get(name, ()))},
    }
    (folder / STAMP).write_text(json.dumps(stamp, indent=4) + "\n")
    logger.info(f"engine {name}: {sum(p.stat().st_size for p in files) / 1e6:.1f} MB in {folder}")
