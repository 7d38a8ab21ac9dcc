"""Checks of a bundle's files that the model-zoo requires, without running anything."""

from __future__ import annotations

from importlib import import_module
from urllib.error import URLError

from monai.bundle import ConfigParser, verify_metadata

from .common import Bundle, Failed, NotChecked, reason

__all__ = ["check_files", "check_keys", "check_large_files", "check_schema", "check_version"]

FILES = (
    "LICENSE", "configs/metadata.json", "configs/inference.json", "models/model.pt", "docs/README.md",
    "docs/data_license.txt",
)  # fmt: skip
KEYS = ("bundle_root", "device", "network_def", "inferer", "output_dir")
LARGE = 25_000_000  # bytes, of a file that the zoo wants listed
LARGE_FILES = ("large_files.yml", "large_files.yaml", "large_files.json")


def check_files(bundle: Bundle) -> str:
    """The files that a bundle has to have are there and not empty."""
    missing = [name for name in FILES if not (bundle.root / name).is_file()]
    empty = [name for name in FILES if name not in missing and not (bundle.root / name).stat().st_size]
    if missing or empty:
        raise Failed("; ".join([f"{name} is missing" for name in missing] + [f"{name} is empty" for name in empty]))
    return f"{len(FILES)} files"


def check_keys(bundle: Bundle) -> str:
    """inference.json has the entries that the zoo's programs require."""
    content = bundle.files.get("inference.json", {})
    missing = [key for key in KEYS if key not in content]
    if missing:
        raise Failed(f"inference.json has no {', '.join(missing)}")
    return f"inference.json has {', '.join(KEYS)}"


def check_version(bundle: Bundle) -> str:
    """The version stands in the changelog."""
    version = bundle.metadata.get("version")
    if version is None or version not in bundle.metadata.get("changelog", {}):
        raise Failed(f"version {version} is not in the changelog of metadata.json")
    return f"{version} is in the changelog"


def check_large_files(bundle: Bundle) -> str:
    """Files over 25 MB are listed with an address, since the zoo's repository cannot hold them."""
    listed: dict[str, dict] = {}
    for name in LARGE_FILES:
        if (bundle.root / name).is_file():
            entries = ConfigParser.load_config_file(str(bundle.root / name))["large_files"]
            listed |= {entry["path"]: entry for entry in entries}
    without = [path for path, entry in listed.items() if not entry.get("url")]
    large = [str(p.relative_to(bundle.root)) for p in bundle.bundle_files() if p.stat().st_size > LARGE]
    unlisted = [path for path in large if path not in listed]
    if unlisted or without:
        faults = [f"{path} has more than 25 MB and is not in large_files.yml" for path in unlisted]
        raise Failed("; ".join(faults + [f"large_files.yml has no url of {path}" for path in without]))
    return f"{len(large)} files over 25 MB, all listed" if large else "no file over 25 MB"


def check_schema(bundle: Bundle) -> str:
    """``monai.bundle.verify_metadata``, which takes a copy of the schema that is there already."""
    try:
        import_module("jsonschema")  # where it is missing, MONAI's stand-in ends with a TypeError
    except ImportError as error:
        raise NotChecked(f"{reason(error)}: pip install jsonschema") from error
    local = bundle.work / "schema.json"
    if bundle.schema is not None:
        local.write_bytes(bundle.schema.read_bytes())
    try:
        verify_metadata(meta_file=bundle.config("metadata.json"), filepath=str(local))
    except URLError as error:
        raise NotChecked(f"the schema cannot be fetched ({reason(error)}); give --schema FILE") from error
    return f"metadata.json follows {bundle.metadata['schema'].rsplit('/', 1)[-1]}"
