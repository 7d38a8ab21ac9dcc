"""Verifies a MONAI bundle as the model-zoo does, and checks its predictions.

    python -m tools.verify_bundle BUNDLE --schema meta_schema.json --override train.json,evaluate.json:dataset_dir=DATA

A line for each check: ok, FAILED with the reason, or "not checked" with what it lacks. The exit status is 1 if any
failed. Nothing is written into the bundle, except by ``--store``. Needs monai, torch, pytorch-ignite, nibabel, fire and
jsonschema, and what the bundle itself needs. See docs/verify.md.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from . import configs, files, network, predictions
from .common import Bundle, Failed, NotChecked, reason

Check = Callable[[Bundle], str]
CHECKS: dict[str, Check] = {
    "files": files.check_files,
    "keys": files.check_keys,
    "version": files.check_version,
    "large files": files.check_large_files,
    "schema": files.check_schema,
    "network_def": configs.check_network_def,
    "preprocessing": configs.check_preprocessing,
    "properties": configs.check_properties,
    "weights": network.check_weights,
    "TorchScript": network.check_torchscript,
    "network in and out": network.check_in_out,
    "input": predictions.check_input,
    "accuracy": predictions.check_accuracy,
    "output grid": predictions.check_grid,
    "command": predictions.check_command,
    "thick slices": predictions.check_thick_slices,
    "orientation": predictions.check_orientation,
}
SLOW = ("TorchScript", "network in and out", "command", "thick slices", "orientation")


def outcome(check: Check, bundle: Bundle) -> tuple[str, str]:
    """Runs a check. Returns "ok", "FAILED" or "not checked", and its message."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return "ok", check(bundle)
    except NotChecked as error:
        return "not checked", str(error)
    except Failed as error:
        return "FAILED", str(error)
    except (Exception, SystemExit) as error:  # of the bundle's own code or of MONAI's
        return "FAILED", reason(error)


def override(text: str) -> tuple[tuple[str, ...], str, Any]:
    """``[FILE[,FILE…]:]KEY=VALUE``; the value is JSON where it can be read as such."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"expected [FILE,…:]KEY=VALUE, got {text!r}")
    files, colon, key = name.rpartition(".json:")
    with contextlib.suppress(json.JSONDecodeError):
        value = json.loads(value)
    return (tuple(f"{files}.json".split(",")) if colon else ()), key, value


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m tools.verify_bundle", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, help="the bundle's folder")
    parser.add_argument("--override", action="append", default=[], type=override, metavar="[FILE,…:]KEY=VALUE",
                        help="overrides an entry of the configs that have it, or of those named")  # fmt: skip
    parser.add_argument("--schema", type=Path, help="local copy of the metadata's schema; fetched by default")
    parser.add_argument(
        "--sample", type=Path, help="labelled scans (imagesTr, labelsTr); those in the bundle by default"
    )
    parser.add_argument("--skip", action="append", default=[], choices=CHECKS, help="leave a check out")
    parser.add_argument("--quick", action="store_true", help=f"leave out {', '.join(SLOW)}")
    parser.add_argument("--store", action="store_true", help="first write the sample's figures into metadata.json")
    args = parser.parse_args(words)
    for path in (args.bundle / "configs" / "metadata.json", args.schema, args.sample):
        if path is not None and not path.exists():
            parser.error(f"there is no {path}")
    try:
        if args.schema is not None:
            json.loads(args.schema.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        parser.error(f"--schema must be a JSON file, {args.schema} is not: {error}")
    return args


def check_overrides(bundle: Bundle) -> None:
    """Checks that the overridden entries exist. Unreadable configs are left to the checks that need them.

    Raises:
        Failed: If an overridden entry is in none of the configs it applies to.
    """
    readable, faults = bundle.read_files
    for named, key, _ in bundle.overrides:
        without = [name for name in named if name not in faults and not bundle.has(name, key)]
        if without:
            raise Failed(f"{', '.join(without)} has no entry {key} to override")
        if not named and not any(bundle.has(name, key) for name in readable):
            raise Failed("; ".join([f"no config has an entry {key} to override", *faults.values()]))


@contextlib.contextmanager
def quiet(root: Path) -> Iterator[None]:
    """A line a check, and nothing else; the bundle's scripts are found where MONAI's runner looks for them.

    Python does not keep what it compiles of them, in this process nor in those that it starts.
    """
    disabled, bytecode = logging.root.manager.disable, sys.dont_write_bytecode
    logging.disable(logging.WARNING)
    sys.path.insert(0, str(root))
    sys.dont_write_bytecode = True
    try:
        with warnings.catch_warnings(), mock.patch.dict(os.environ, PYTHONDONTWRITEBYTECODE="1"):
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.dont_write_bytecode = bytecode
        sys.path.remove(str(root))
        logging.disable(disabled)


def main(words: list[str] | None = None) -> int:
    args = arguments(words)
    counts = dict.fromkeys(("ok", "FAILED", "not checked"), 0)
    root = args.bundle.resolve()
    with tempfile.TemporaryDirectory() as work, quiet(root):
        bundle = Bundle(root, Path(work), args.override, args.schema, args.sample)
        try:
            check_overrides(bundle)
        except Failed as error:
            raise SystemExit(f"error: {error}") from None
        if args.store:
            state, text = outcome(predictions.store, bundle)
            if state != "ok":
                raise SystemExit(f"error: nothing is stored: {text}")
        for name, check in CHECKS.items():
            if name in args.skip:
                state, text = "not checked", "left out"
            elif args.quick and name in SLOW:
                state, text = "not checked", "left out by --quick"
            else:
                state, text = outcome(check, bundle)
            counts[state] += 1
            print(f"{state}: {name}: {text}", flush=True)
    print(f"{root.name}: {', '.join(f'{n} {state}' for state, n in counts.items())}")
    return 1 if counts["FAILED"] else 0


if __name__ == "__main__":
    sys.exit(main())
