"""Finds the bundle of a task: in a clone, in a downloaded zip, beside the package, or where pip installed it from."""

from __future__ import annotations

import json
import os
import shutil
import uuid
import zipfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

__all__ = ["Bundle", "BundleError", "find_bundle", "find_bundles", "task_of"]

CONFIG = Path("configs") / "inference.json"
SUFFIX = "_mri_segmentation"
SPELLINGS = {"brain-tumour": "brain-tumor"}  # accepted, and shown instead of the folder's
DISTRIBUTION = "rare-unet-networks"


class BundleError(ValueError):
    """No bundle of the task, or one that cannot be used; the message is one line."""


@dataclass(frozen=True)
class Bundle:
    """A bundle on this machine.

    Attributes:
        task: name of its task on the command line.
        root: its folder.
        is_own: whether it came with the package. Any other may be a stranger's, and its configs run code.
    """

    task: str
    root: Path
    is_own: bool = False

    def config(self, name: str) -> Path:
        """Path of one of its configs."""
        return self.root / "configs" / name

    @property
    def version(self) -> str:
        """Version of the weights, from ``metadata.json``."""
        try:
            return str(json.loads(self.config("metadata.json").read_text(encoding="utf-8"))["version"])
        except (OSError, ValueError, KeyError, TypeError):
            return "unknown"


def task_of(root: Path) -> str:
    """Name of a bundle's task on the command line: ``hippocampus_mri_segmentation`` is ``hippocampus``."""
    return _spelling(root.name.removesuffix(SUFFIX).replace("_", "-").lower())


def _spelling(task: str) -> str:
    return next((shown for shown, other in SPELLINGS.items() if task == other), task)


def _is_bundle(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def _source_of_installation() -> Path | None:
    """Folder that pip installed the package from (PEP 610), such as a clone; None if it is unknown."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        text = distribution(DISTRIBUTION).read_text("direct_url.json")
        url = urlparse(json.loads(text or "{}").get("url", ""))
    except (PackageNotFoundError, ValueError, AttributeError):
        return None
    return Path(url2pathname(url.path)) if url.scheme == "file" else None


def _own_places() -> list[Path]:
    """Folders of bundles that came with the package."""
    package = Path(__file__).resolve().parents[2]  # a clone, a bundle that carries the package, or site-packages
    places = [package if _is_bundle(package) else package / "bundles"]
    source = _source_of_installation()
    if source is not None:
        places.append(source / "bundles")
    return list(dict.fromkeys(places))


def _places(folder: str | Path | None) -> list[Path]:
    """Folders that are bundles or hold some, the first place first."""
    if folder is not None:
        root = _unpacked(Path(folder))
        return [root, root / "bundles"]
    return list(dict.fromkeys([*_own_places(), Path.cwd(), Path.cwd() / "bundles"]))


def _unpacked(path: Path) -> Path:
    """A folder as it is; a zip of a release is unpacked beside it, once.

    Raises:
        BundleError: if the path does not exist or is neither.
    """
    if path.is_dir():
        return path
    if not path.is_file():
        raise BundleError(f"--bundle must be a folder or a zip of a bundle, {path} does not exist.")
    if not zipfile.is_zipfile(path):
        raise BundleError(f"--bundle must be a folder or a zip of a bundle, {path} is a file of another kind.")
    folder = path.with_suffix("")
    if not folder.exists():
        # Unpacked to a temporary name, so that an interrupted call leaves no incomplete bundle.
        temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:12]}")
        try:
            with zipfile.ZipFile(path) as archive:
                archive.extractall(temporary)
            os.replace(temporary, folder)
        except zipfile.BadZipFile as error:
            raise BundleError(f"--bundle {path} cannot be unpacked: {error}: download it again.") from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def find_bundles(folder: str | Path | None = None) -> dict[str, Bundle]:
    """Finds bundles, by task; of two bundles of a task, that of the first place.

    Args:
        folder: ``--bundle``: a bundle, a folder of bundles, or the zip of a release. By default the folder of the
            package, the clone that pip installed it from, and the current folder are searched.

    Raises:
        BundleError: if ``folder`` does not exist or is no bundle.
    """
    bundles: dict[str, Bundle] = {}
    own_places = _own_places() if folder is None else []
    for place in _places(folder):
        candidates = [place] if _is_bundle(place) else sorted(place.iterdir()) if place.is_dir() else []
        for root in filter(_is_bundle, candidates):
            bundles.setdefault(task_of(root), Bundle(task_of(root), root.resolve(), place in own_places))
    if folder is not None and not bundles:
        raise BundleError(f"--bundle must be a bundle or hold some, {folder} has no {CONFIG.as_posix()}.")
    return bundles


def find_bundle(task: str, folder: str | Path | None = None) -> Bundle:
    """Finds the bundle of a task.

    Args:
        task: its name, such as ``hippocampus``, or the folder name of its bundle.
        folder: see :py:func:`find_bundles`.

    Raises:
        BundleError: if there is none; the message says where it was looked for.
    """
    bundles = find_bundles(folder)
    name = task_of(Path(task))
    if name in bundles:
        return bundles[name]
    if Path(task).exists():
        raise BundleError(f"expected a task before {task}, such as {' or '.join(sorted(bundles)) or 'hippocampus'}.")
    places = ", ".join(str(place) for place in _places(folder))
    known = f"these have {', '.join(sorted(bundles))}" if bundles else "give --bundle, a folder or the zip of a release"
    raise BundleError(f"no bundle of the task {task!r} in {places}: {known}.")
