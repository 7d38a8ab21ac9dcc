"""Chooses the fastest runtime that this machine has: OpenVINO on a CPU, exported once, otherwise eager PyTorch."""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from shutil import rmtree
from typing import Any

import torch
from torch import nn

from ..networks.weights import load_weights
from ..utils.errors import innermost, is_out_of_memory, root_cause
from ..utils.files import hidden_beside, read_json, sha256, write_text
from .cache import cache_folders, put_folder, remove_folder, remove_leftovers, writable_folder
from .load import describe, load_runtime
from .verified import TOLERANCE, VerifiedPrograms

__all__ = ["AutoRuntime"]

logger = logging.getLogger(__name__)
RUNTIME = "openvino"
PACKAGES = ("openvino", "onnx", "onnxscript")
FAILURE = "failure.json"  # beside the exports: why this network cannot be exported
NOISY = ("onnxscript", "onnx_ir", "torch.onnx", "rare_unet_networks.runtimes.export")  # loggers


class ExportError(ValueError):
    """Raised for a network that OpenVINO cannot compute rightly; a user's error, whose message is enough."""


class AutoRuntime(nn.Module):
    """A network that OpenVINO computes where that is possible and right, and eager PyTorch elsewhere.

    OpenVINO is used on a CPU where its packages are installed. The network is exported once, before the first scan,
    into a cache that has a folder for each checkpoint, network and version. Eager is used if a package is missing, if
    the export fails, or if its logits differ by more than 0.05 from those of eager. One line of the log says why. The
    first image of each level and grid is compared, too, by
    :py:class:`rare_unet_networks.runtimes.verified.VerifiedPrograms`. Processes may start at the same time: each
    exports into a folder of its own, and the first one's is kept.

    Args:
        network: a :py:class:`rare_unet_networks.networks.RAREUNet`.
        export_dir: the cache is its folder ``auto``; if it cannot be written, it is in the user's cache.
        checkpoint: weights of the network.
        device: device of the network.

    Attributes:
        runtime: ``"openvino"`` or ``"eager"``, after :py:meth:`prepare`.
        refused: levels that eager computes although the runtime is OpenVINO.
    """

    def __init__(
        self, network: nn.Module, export_dir: str | Path, checkpoint: str | Path, device: str | torch.device = "cpu"
    ) -> None:
        super().__init__()
        self.network = network.to(device)
        self.device = torch.device(device)
        self.export_dir = Path(export_dir)
        self.checkpoint = Path(checkpoint)
        self._chosen: nn.Module | None = None

    @property
    def runtime(self) -> str:
        return getattr(self._chosen, "runtime", "eager")

    @property
    def refused(self) -> list[int]:
        """Levels that eager computes although the runtime is another."""
        return getattr(self._chosen, "refused", [])

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """As the network."""
        if self._chosen is None:
            self.prepare()
        return self._chosen(x, *args, **kwargs)

    def prepare(self) -> None:
        """Chooses the runtime, and exports the network if that has not been done."""
        reason, level = self._why_eager()
        if reason is None:
            try:
                self._set(_openvino(self.network, self.export_dir, self.checkpoint))
                return
            except Exception as error:  # whatever an exporter or a driver raises, eager can be used
                reason, level = root_cause(error), logging.WARNING
        logger.log(level, f"runtime auto: eager, because {reason}")
        self._set(self.network)

    def _set(self, chosen: nn.Module) -> None:
        self.__dict__["_chosen"] = chosen  # not a submodule: it may be the network once more

    def _why_eager(self) -> tuple[str | None, int]:
        """Why OpenVINO is not tried, None if it is, and the level of the line that says so."""
        if self.device.type != "cpu":
            return f"the network runs on {self.device}", logging.INFO
        missing = [package for package in PACKAGES if find_spec(package) is None]
        if missing:
            return f"of missing packages: {', '.join(missing)}", logging.DEBUG
        try:
            load_weights(self.checkpoint, self.network, map_location="cpu")
        except ValueError as error:  # the handler that loads the weights raises it, if they are needed
            return str(error), logging.DEBUG
        return None, logging.INFO


def _key(network: nn.Module, checkpoint: Path) -> str:
    """Name of an export: it differs by weights, network, its code, and the versions of the packages."""
    code = {p.name: sha256(p) for p in sorted((Path(__file__).parents[1] / "networks").glob("*.py"))}
    content = [sha256(checkpoint), describe(network), code, {p: _version(p) for p in ("torch", *PACKAGES)}]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _openvino(network: nn.Module, export_dir: Path, checkpoint: Path) -> nn.Module:
    """The network of OpenVINO from the cache, exported into it if it is not there.

    Raises:
        ExportError: if it was or is not possible to export it.
    """
    key = _key(network, checkpoint)
    for root in cache_folders(export_dir):
        folder = root / key
        _check_failure(folder)
        if folder.is_dir():
            try:
                return _loaded(network, folder, checkpoint)
            except ValueError as error:
                logger.debug(f"{folder} is exported again: {error}")
                remove_folder(folder)
    root = writable_folder(cache_folders(export_dir))
    remove_leftovers(root)
    folder = root / key
    logger.info(f"runtime auto: exports the network to OpenVINO, once, in about a minute, into {folder}")
    _export(network, folder, checkpoint)
    _check_failure(folder)
    return _loaded(network, folder, checkpoint)


def _check_failure(folder: Path) -> None:
    """Looks for an export that failed, in this or an earlier run.

    Raises:
        ExportError: if there is one.
    """
    file = folder / FAILURE
    if file.exists():
        raise ExportError(f"{read_json(file)['reason']} (not tried again while {file} exists)")


def _loaded(network: nn.Module, folder: Path, checkpoint: Path) -> nn.Module:
    return VerifiedPrograms(load_runtime(RUNTIME, network, folder, checkpoint, "cpu"), network, folder)


def _export(network: nn.Module, folder: Path, checkpoint: Path) -> None:
    """Exports into a folder of its own and renames it, so that processes that do so at once do not disturb each other.

    A network that cannot be exported gets a folder that says why: it would be tried before each run otherwise.
    """
    from .export import export_runtimes  # it takes a second to import

    temporary = hidden_beside(folder)
    try:
        with _quiet():
            try:
                export_runtimes(RUNTIME, network, temporary, checkpoint, tolerance=TOLERANCE)
            except Exception as error:
                cause = innermost(error)
                if isinstance(cause, (OSError, ImportError)) or is_out_of_memory(cause):
                    raise  # of this machine at this time, not of this network
                rmtree(temporary, ignore_errors=True)
                write_text(temporary / FAILURE, json.dumps({"reason": root_cause(error)}))
        put_folder(temporary, folder)
    finally:
        rmtree(temporary, ignore_errors=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Leaves out what exporters say of their own code."""
    levels = {name: logging.getLogger(name).level for name in NOISY}
    try:
        for name in NOISY:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
