"""Builds the downloads of a bundle: a zip, and the folder of a repository on the Hugging Face hub.

    python tools/release/build_bundle.py bundles/hippocampus_mri_segmentation bundles/brain_tumor_mri_segmentation

    dist/<name>_v<version>.zip     top folder <name>/, the same bytes whenever it is built from the same files
    dist/hub/<name>/               the same files and a model card
    dist/SHA256SUMS                of all zips in dist/, also of earlier calls (sha256sum --check SHA256SUMS)

Both hold what the bundle's folder holds, its TorchScript (models/model.ts) and a copy of the package that its configs
name, so that programs that put the bundle's folder on Python's path (MONAI Label, any command run in it) need no more
than MONAI. Files above 25 MB are listed in large_files.yml if --url says where the hub's folder will be found.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rare_unet_networks.utils import sha256
from rare_unet_networks.utils.files import read_json

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "rare_unet_networks"
LEFT_OUT = shutil.ignore_patterns("output", "data", "eval", "__pycache__", ".*", "*.ts")
PACKAGE_LEFT_OUT = shutil.ignore_patterns(
    "baselines", "__pycache__", ".*"
)  # baselines: docs/experiment alone needs them
EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest time a zip can hold
PIPELINE = "image-segmentation"
LARGE = 25_000_000  # bytes, as in tools/verify_bundle/files.py
MEAN_DICE = re.compile(r"dice_native_scale_(?P<scale>[0-9.]+)_mean")


def write_zip(contents: Mapping[str, bytes], path: Path) -> None:
    """A zip whose bytes depend on names and contents alone: in order, stored, of one date and one set of rights."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)


def export_torchscript(bundle: Path) -> None:
    """``models/model.ts`` by MONAI's own command, in the bundle's folder.

    TorchScript writes sets in the order of their hashes, MONAI stores the path it was called with, and debug records
    name the folder of each source file: for equal bytes, the hash seed is fixed, the path relative, and those records
    and the id that is made from them are left out.
    """
    command = [sys.executable, "-m", "monai.bundle", "ckpt_export", "network_def"]
    command += ["--bundle_root", ".", "--filepath", "models/model.ts", "--ckpt_file", "models/model.pt"]
    command += ["--meta_file", "configs/metadata.json", "--config_file", "['configs/inference.json']"]
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(command, cwd=bundle, env=environment, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{bundle.name}: ckpt_export failed: {result.stderr.strip()[-2000:]}")
    path = bundle / "models" / "model.ts"
    with zipfile.ZipFile(path) as archive:
        records = {n: archive.read(n) for n in archive.namelist() if not n.endswith((".debug_pkl", "serialization_id"))}
    write_zip(records, path)


def list_large_files(bundle: Path, url: str | None) -> None:
    """``large_files.yml``, as the model zoo requires it: path, address and digest of each file above 25 MB."""
    large = [p for p in sorted(bundle.rglob("*")) if p.is_file() and p.stat().st_size > LARGE]
    names = [p.relative_to(bundle).as_posix() for p in large]
    if not large:
        return
    if url is None:
        print(f"{bundle.name}: {', '.join(names)} above 25 MB, to be listed in large_files.yml with --url")
        return
    entries = [
        {"path": name, "url": f"{url.rstrip('/')}/{name}", "hash_val": sha256(path), "hash_type": "sha256"}
        for name, path in zip(names, large)
    ]
    (bundle / "large_files.yml").write_text(yaml.safe_dump({"large_files": entries}, sort_keys=False))


def card_header(metadata: dict[str, Any]) -> dict[str, Any]:
    """What the Hugging Face hub reads at the head of a model card: licence, tags, dataset and mean Dice per scale."""
    dice = {m["scale"]: value for key, value in metadata["eval_metrics"].items() if (m := MEAN_DICE.fullmatch(key))}
    metrics = [
        {"type": "dice", "name": f"mean Dice at scale {scale}, own grid, validation", "value": value}
        for scale, value in dice.items()
    ]
    task = {"type": PIPELINE, "name": metadata["task"]}
    dataset = {"name": metadata["data_source"], "type": metadata["datasets"][0]}
    return {
        "license": "apache-2.0",
        "library_name": "monai",
        "pipeline_tag": PIPELINE,
        "tags": ["monai", "medical", "mri", "segmentation", "rare-unet"],
        "datasets": metadata["datasets"],
        "metrics": ["dice"],
        "model-index": [
            {"name": metadata["name"], "results": [{"task": task, "dataset": dataset, "metrics": metrics}]}
        ],
    }


def write_model_card(bundle: Path, metadata: dict[str, Any]) -> None:
    """``README.md`` of the hub's folder: the header and the bundle's own README."""
    header = yaml.safe_dump(card_header(metadata), sort_keys=False, allow_unicode=True)
    (bundle / "README.md").write_text(f"---\n{header}---\n\n{(bundle / 'docs' / 'README.md').read_text()}")


def check_links(bundle: Path) -> None:
    """Raises if a distributed file or folder of a bundle is a link out of the bundle: its content would be published.

    Raises:
        ValueError: If there is such a link, also by way of another link. The message names it and its target.
    """
    root = bundle.resolve()
    for folder, folders, files in os.walk(root):
        left_out = LEFT_OUT(folder, folders + files)
        folders[:] = [name for name in folders if name not in left_out]
        for name in sorted({*folders, *files} - left_out):
            path = Path(folder, name)
            target = path.resolve()
            if path.is_symlink() and (not target.is_relative_to(root) or target in path.parents):
                raise ValueError(f"{path} must not be a link out of the bundle or to a folder above it, got {target}.")


def copy_with_package(bundle: Path, folder: Path) -> None:
    """Copies the distributed files of a bundle, and the package, so that the bundle runs without installing it.

    Raises:
        ValueError: If the bundle links to files outside of it; nothing is copied then.
    """
    check_links(bundle)
    shutil.copytree(bundle, folder, ignore=LEFT_OUT)
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=PACKAGE_LEFT_OUT)


def build(bundle: Path, output_dir: Path, url: str | None = None) -> Path:
    """Builds the zip and the hub's folder of one bundle.

    Args:
        bundle: its folder.
        output_dir: where both go.
        url: address below which the hub's files will be found, such as
            ``https://huggingface.co/owner/name/resolve/main``.

    Returns:
        the zip's path.

    Raises:
        ValueError: If the folder is not a bundle's, it links to files outside of it, or its metadata are not JSON.
        RuntimeError: If MONAI cannot export its network.
    """
    meta_file = bundle / "configs" / "metadata.json"
    if not meta_file.is_file():
        raise ValueError(f"bundle must be a folder with configs/metadata.json, got {bundle}.")
    metadata = read_json(meta_file)
    hub = output_dir / "hub" / bundle.name
    shutil.rmtree(hub, ignore_errors=True)
    copy_with_package(bundle, hub)
    export_torchscript(hub)
    list_large_files(hub, url)
    path = output_dir / f"{bundle.name}_v{metadata['version']}.zip"
    files = sorted(p for p in hub.rglob("*") if p.is_file())
    write_zip({p.relative_to(hub.parent).as_posix(): p.read_bytes() for p in files}, path)
    write_model_card(hub, metadata)
    return path


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", type=Path, help="folders of bundles")
    parser.add_argument("--output_dir", type=Path, default=Path("dist"))
    parser.add_argument("--url", help="address below which the files of one bundle's hub folder will be found")
    args = parser.parse_args(argv)
    if args.url is not None and len(args.bundles) > 1:
        parser.error("--url is that of one bundle")
    try:
        for bundle in args.bundles:
            build(bundle.resolve(), args.output_dir.resolve(), args.url)
    except ValueError as error:
        parser.error(str(error))
    # A release with --url takes a call for each bundle.
    lines = [f"{sha256(path)}  {path.name}\n" for path in sorted(args.output_dir.glob("*.zip"))]
    (args.output_dir / "SHA256SUMS").write_text("".join(lines))
    print("".join(lines), end="")


if __name__ == "__main__":
    main()
