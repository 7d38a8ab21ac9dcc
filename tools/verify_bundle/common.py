"""The bundle's configs as they are run, and the exceptions that end a check.

This module uses only MONAI's bundle specification and nothing of this package.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow

__all__ = ["Bundle", "Failed", "NotChecked", "reason", "visible_files"]


LONG = 400  # characters of a reason
# Where configs write to and look for a user's own data: not part of what is handed on.
LOCAL = ("data", "eval", "output")


def visible_files(folder: Path, pattern: str = "*", without: Collection[str] = ()) -> list[Path]:
    """Lists the files in a folder and below, sorted, without hidden files and folders.

    Args:
        folder: the folder.
        pattern: pattern of the path's end.
        without: subfolders to ignore.
    """
    files = []
    for path in sorted(folder.rglob(pattern)):
        parts = path.relative_to(folder).parts
        if parts[0] in without or any(part.startswith(".") for part in parts):
            continue
        if path.is_file():
            files.append(path)
    return files


class Failed(Exception):
    """A check found a fault; the message names it."""


class NotChecked(Exception):
    """A check lacks something that it needs; the message says what. It does not count as passed."""


def reason(error: BaseException, limit: int = LONG) -> str:
    """Returns the root cause of an error in one line, of about ``limit`` characters at most."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split())
    text = text if isinstance(error, Failed) and text else f"{type(error).__name__}: {text}"
    return text if len(text) <= limit else f"{text[:limit]} …"


@dataclass
class Bundle:
    """A bundle's folder.

    Args:
        root: the folder.
        work: an empty folder for what the checks write; nothing is written into the bundle.
        overrides: (config files, none of them for all, key, value).
        schema: local copy of the metadata's schema; None to fetch it from the address that the metadata names.
        sample: folder with ``imagesTr`` and ``labelsTr`` in it or below; the bundle itself by default.
    """

    root: Path
    work: Path
    overrides: list[tuple[tuple[str, ...], str, Any]] = field(default_factory=list)
    schema: Path | None = None
    sample: Path | None = None
    predictions: dict[str, Any] = field(default_factory=dict)  # of the samples by case, filled on first use

    @property
    def configs(self) -> Path:
        return self.root / "configs"

    def bundle_files(self, pattern: str = "*") -> list[Path]:
        """Lists the files that are distributed with the bundle; ``pattern`` is that of their paths' end."""
        return visible_files(self.root, pattern, LOCAL)

    def read(self, path: Path) -> Any:
        """Reads a JSON file of the bundle.

        Raises:
            Failed: If it is not JSON; unlike those of Python and MONAI, the message names the file.
        """
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise Failed(f"{path.relative_to(self.root)} is not JSON: {error}") from None

    @cached_property
    def metadata(self) -> dict[str, Any]:
        return self.read(self.configs / "metadata.json")

    @cached_property
    def read_files(self) -> tuple[dict[str, dict], dict[str, str]]:
        """``files``, and why others, the metadata among them, cannot be read, by the same names."""
        contents, faults = {}, {}
        for path in visible_files(self.configs, "*.json"):
            name = str(path.relative_to(self.configs))
            try:
                content = self.read(path)
            except Failed as error:
                faults[name] = str(error)
                continue
            if isinstance(content, dict) and path != self.configs / "metadata.json":
                contents[name] = content
        return contents, faults

    @property
    def files(self) -> dict[str, dict]:
        """Every JSON config but the metadata by its name below ``configs``, as written; lists of data are left out.

        Raises:
            Failed: If one is not JSON.
        """
        contents, faults = self.read_files
        if faults:
            raise Failed(next(iter(faults.values())))
        return contents

    @property
    def complete(self) -> list[str]:
        """Configs that stand alone: ``bundle_root`` is the property that every kind of workflow has to have."""
        return [name for name, content in self.files.items() if "bundle_root" in content]

    def has(self, name: str, key: str) -> bool:
        """Whether a config that can be read has an entry; one that does not stand alone, as a key of its own."""
        content = self.read_files[0].get(name, {})
        return key in content or ("bundle_root" in content and key in ConfigParser(copy.deepcopy(content)))

    def config(self, name: str) -> str:
        """Path of a config or of the metadata, for MONAI; it can be read."""
        path, (_, faults) = self.configs / name, self.read_files
        if not path.is_file():
            raise NotChecked(f"there is no configs/{name}")
        if name in faults:
            raise Failed(faults[name])
        return str(path)

    def overridden(self, *names: str) -> dict[str, Any]:
        """What is overridden in these configs read together, of those keys they have."""
        parser = ConfigParser()
        parser.read_config([self.config(name) for name in names])
        values = {"bundle_root": str(self.root), "output_dir": str(self.work / "output")}
        values |= {key: value for files, key, value in self.overrides if not files or set(files) & set(names)}
        return {key: value for key, value in values.items() if key in parser}

    def parser(self, *names: str) -> ConfigParser:
        """These configs read together, as MONAI's runner reads them."""
        parser = ConfigParser()
        parser.read_config([self.config(name) for name in names])
        parser.read_meta(self.config("metadata.json"))
        parser.update(self.overridden(*names))
        parser.parse(reset=True)
        return parser

    def workflow(self, name: str, **more: Any) -> ConfigWorkflow:
        """A config's workflow, initialised; ``more`` overrides further entries."""
        path = self.config(name)
        kind = "train" if "train" in self.read_files[0][name] else "infer"
        values = {**self.overridden(name), **more}
        workflow = ConfigWorkflow(path, workflow_type=kind, logging_file=False, **values)
        workflow.initialize()
        return workflow

    def needs_data(self, name: str) -> None:
        """Checks that the data folder of a config exists.

        Raises:
            NotChecked: If it does not exist.
        """
        parser = self.parser(name)
        folder = parser.get_parsed_content("dataset_dir") if "dataset_dir" in parser else "."
        if not Path(str(folder)).exists():
            raise NotChecked(f"{name}: there is no {folder}; give --override {name}:dataset_dir=FOLDER")
