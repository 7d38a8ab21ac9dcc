"""Programs of ONNX Runtime and OpenVINO: one level of a network, computed from a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch

__all__ = ["READERS", "OpenVINOProgram", "Program", "optional"]

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


def _read_onnx(path: Path, outputs: Sequence[str]) -> Program:
    onnxruntime = optional("onnxruntime", "onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda image: [torch.from_numpy(y) for y in session.run(None, {"image": image.numpy()})]


class OpenVINOProgram:
    """A program of OpenVINO, compiled when it is first used, and for the outputs that are used.

    The file is opened once: it may be removed or replaced afterwards.

    Args:
        path: file of the program.
        outputs: its outputs, in order.
    """

    def __init__(self, path: Path, outputs: Sequence[str]) -> None:
        self.outputs = tuple(outputs)
        self._openvino = optional("openvino", "openvino")
        self._core = self._openvino.Core()
        self._model = self._core.read_model(str(path))
        self._compiled: dict[tuple[str, ...], Program] = {}

    def __call__(self, image: torch.Tensor) -> list[torch.Tensor]:
        return self.only(self.outputs)(image)

    def only(self, names: Sequence[str]) -> Program:
        """Returns a program of these outputs, which computes nothing else."""
        names = tuple(names)
        if names not in self._compiled:
            self._compiled[names] = self._compile(names)
        return self._compiled[names]

    def _compile(self, names: Sequence[str]) -> Program:
        model = self._model
        if names != self.outputs:
            kept = [model.output(self.outputs.index(name)) for name in names]
            model = self._openvino.Model(kept, model.get_parameters())
        # By default OpenVINO computes in bfloat16 if the CPU supports it, and logits differ by some hundredths.
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        compiled = self._core.compile_model(model, "CPU", settings)

        def program(image: torch.Tensor) -> list[torch.Tensor]:
            results = compiled([image.numpy()], share_inputs=True, share_outputs=True)
            # The next call overwrites the results. Torch would copy them with all its threads, which have to wait for
            # those of OpenVINO: at coarse levels that took a fifth to a half of the time.
            return [torch.from_numpy(results[i].copy()) for i in range(len(names))]

        return program


READERS = {"onnx": _read_onnx, "openvino": OpenVINOProgram}
