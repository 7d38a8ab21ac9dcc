"""A network that something else than eager PyTorch computes, from exported files, called as the network itself.

The files are made by ``export_engines``. Routing stays where it is, in the inferer: it
asks for a level, and that level's program runs.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from ..data.datalists import read_json
from ..levels import OUTPUTS, check_divisible, check_level
from ..networks.outputs import Prediction

__all__ = ["ENGINES", "LevelPrograms", "with_engine"]

logger = logging.getLogger(__name__)
ENGINES = ("eager", "torchscript", "export", "aotinductor", "onnx", "openvino")
# What a level's program is called by each engine; TorchScript has one for all levels, as its ``level`` is an argument.
FILES = {
    "torchscript": "network.ts",
    "export": "level_{}.pt2",
    "aotinductor": "level_{}.pt2",
    "onnx": "level_{}.onnx",
    "openvino": "level_{}.xml",
}
STAMP = "export.json"
Program = Callable[[torch.Tensor], Sequence[torch.Tensor]]


def optional(package: str, engine: str) -> ModuleType:
    """A package that comes with the extra of an engine's name.

    Raises:
        ModuleNotFoundError: naming the extra, when the package cannot be imported.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise ModuleNotFoundError(
            f"engine {engine!r} needs the package {package} ({error}): pip install '.[{engine}]' in the repository.",
            name=package,
        ) from None


def sha256(path: str | Path) -> str:
    """Checksum of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def network_digest(network: nn.Module) -> str:
    """Digest of what a network computes but for its weights: its parts with their arguments, and their code here."""
    classes = {type(module) for module in network.modules()}
    own = {inspect.getfile(c) for c in classes if c.__module__.startswith("rare_unet_networks.")}
    text = repr(network) + "".join(sorted(map(sha256, own)))
    return hashlib.sha256(text.encode()).hexdigest()


class LevelPrograms(nn.Module):
    """One program per level, called as the ``RAREUNet`` that they were exported from.

    Programs take one image; the members of a batch follow each other.

    Args:
        programs: from level 0 on. Each takes an image of shape (1, C, *spatial_size) and gives the logits on its grid
            and, above level 0 of a network with ``fine_convs``, those on the level 0 grid.
        divisors: what every axis must be divisible by, one per level.
        device: where the programs compute; answers come back to the device of the image.
    """

    def __init__(
        self, programs: Sequence[Program], divisors: Sequence[int], device: str | torch.device = "cpu"
    ) -> None:
        super().__init__()
        # Not registered as modules: those of torch.export refuse eval(), which an evaluator calls.
        self.programs = tuple(programs)
        self.divisors = tuple(divisors)
        self.device = device

    @torch.no_grad()
    def forward(self, x: torch.Tensor, level: int = 0, output: str = "scan") -> torch.Tensor | Prediction:
        """As :py:meth:`rare_unet_networks.networks.RAREUNet.forward` for an image.

        Raises:
            ValueError: when ``level`` does not exist, a size does not divide, or ``output`` asks for what the network
                does not have.
        """
        check_level(level, len(self.programs))
        check_divisible(list(x.shape[2:]), level, self.divisors[level])
        if output not in OUTPUTS:
            raise ValueError(f"output must be one of {OUTPUTS}, got {output!r}.")
        images = x.to(self.device, torch.float32).contiguous()
        answers = [self.programs[level](image[None]) for image in images]
        scan, *fine = (torch.cat(parts).to(x.device) for parts in zip(*answers))
        if level == 0:
            fine = [scan]
        if output == "scan":
            return scan
        if not fine:
            raise ValueError(f"output must be 'scan' for a network without fine_convs, got {output!r}.")
        return fine[0] if output == "fine" else Prediction(scan, fine[0])


def _read_export(path: Path, device: torch.device) -> Program:
    from torch.export.passes import move_to_device_pass

    # Without guards: they take an axis of one block for a size of its own, the program does not.
    return move_to_device_pass(torch.export.load(path), device).module(check_guards=False)


def _read_aotinductor(path: Path, device: torch.device) -> Program:
    return torch._inductor.aoti_load_package(str(path))


def _read_onnx(path: Path, device: torch.device) -> Program:
    onnxruntime = optional("onnxruntime", "onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda image: [torch.from_numpy(y) for y in session.run(None, {"image": image.numpy()})]


def _read_openvino(path: Path, device: torch.device) -> Program:
    openvino = optional("openvino", "openvino")
    # By default it computes in bfloat16 where the CPU can, and logits are off by some hundredths.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)

    def program(image: torch.Tensor) -> list[torch.Tensor]:
        answers = compiled([image.numpy()])
        return [torch.from_numpy(answers[i]) for i in range(len(compiled.outputs))]

    return program


READERS = {"export": _read_export, "aotinductor": _read_aotinductor, "onnx": _read_onnx, "openvino": _read_openvino}


def read(engine: str, network: nn.Module, folder: Path, device: str | torch.device = "cpu") -> nn.Module:
    """The network of the files in ``folder``, whatever weights they were made of: see :py:func:`with_engine`."""
    if engine == "torchscript":
        return torch.jit.load(folder / FILES[engine], map_location=device)
    device = torch.device(device if engine == "export" else "cpu")
    levels = range(network.num_levels)
    programs = [READERS[engine](folder / FILES[engine].format(level), device) for level in levels]
    return LevelPrograms(programs, [network.divisor(level) for level in levels], device)


def with_engine(
    engine: str,
    network: nn.Module,
    export_dir: str | Path,
    checkpoint: str | Path,
    device: str | torch.device = "cpu",
) -> nn.Module:
    """The network as an engine computes it, to be called as ``network(x, level=level, output=output)``.

    Args:
        engine: ``"eager"`` is ``network`` itself. ``"torchscript"`` and ``"export"`` (a ``torch.export`` program) run
            on ``device``, ``"aotinductor"``, ``"onnx"`` (ONNX Runtime) and ``"openvino"`` on the CPU.
        network: a :py:class:`rare_unet_networks.networks.RAREUNet`.
        export_dir: the folder that ``export_engines`` wrote to; eager needs none.
        checkpoint: the weights that the export has to be of.
        device: where the network is wanted.

    Raises:
        ValueError: on an unknown engine, or an export that is missing, incomplete, of other weights or of another
            network.
        ModuleNotFoundError: when the engine's package is missing.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {ENGINES}, got {engine!r}.")
    if engine == "eager":
        return network.to(device)
    folder = Path(export_dir) / engine
    paths = f"--checkpoint {Path(checkpoint).absolute()} --export_dir {Path(export_dir).absolute()}"
    command = "run exporting --config_file \"['configs/inference.json','configs/export.json']\""
    again = f"in the bundle's folder, `{command} --engine {engine} {paths}` writes it"
    if not (folder / STAMP).exists():
        raise ValueError(f"export_dir must hold the network for engine {engine!r}, {folder} does not: {again}.")
    stamp = read_json(folder / STAMP)
    if stamp["checkpoint"] != sha256(checkpoint):
        raise ValueError(f"the export in {folder} is not of the weights in {checkpoint}: {again}.")
    if stamp.get("network") != network_digest(network):
        raise ValueError(f"the export in {folder} is of another network, or of another version of its code: {again}.")
    if engine == "aotinductor" and stamp["versions"]["torch"] != version("torch"):
        was, now = stamp["versions"]["torch"], version("torch")
        raise ValueError(f"the export in {folder} is machine code for torch {was}, this is {now}: {again}.")
    changed = [n for n, known in stamp["files"].items() if not (folder / n).exists() or sha256(folder / n) != known]
    if changed:
        raise ValueError(f"the export in {folder} is not as it was written ({', '.join(changed)}): {again}.")
    logger.info(f"engine {engine}: {folder}, of the weights in {checkpoint}")
    return read(engine, network, folder, device)
