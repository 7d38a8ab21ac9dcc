"""Sets up MONAI Label with the bundles: an environment of its own, and its app "monaibundle" with both in it.

    python tools/release/monai_label.py environment --env .monai_label
    python tools/release/monai_label.py app --env .monai_label --app monai_label_app

The second prints the command that starts the server. MONAI Label wants versions of its own (numpy below 2), so it gets
an environment; the bundles bring a copy of their package. It knows no configs but inference.json and train.json: the
app's train.json is the bundle's, with finetune.json and monai_label.json (see there) applied to it as overlays.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from build_bundle import REPOSITORY, copy_with_package
from monai.bundle import ConfigParser

# What MONAI Label 0.8.5 runs with; its own requirements leave newer versions in that it does not.
PACKAGES = ["monailabel==0.8.5", "torch==2.13.0", "pydicom<3", "pynetdicom<3", "dicomweb-client[gcp]<0.60"]
# Without it the response to an unusable scan is "Internal Server Error", and only the log has the reason.
RESPOND_WITH_REASON = """

def _infer_or_say_why(self, request, datastore=None, infer=MyApp.infer):
    from fastapi import HTTPException
    from nibabel.filebasedimages import ImageFileError

    try:
        return infer(self, request, datastore)
    except Exception as error:
        reason = error
        while reason.__cause__ is not None:
            reason = reason.__cause__
        if not isinstance(reason, (ValueError, OSError, EOFError, ImageFileError)):
            raise
        raise HTTPException(status_code=422, detail=str(reason)) from error


MyApp.infer = _infer_or_say_why
"""
TRAINING = ("train.json", "finetune.json", "monai_label.json")
NEEDED = ("configs/inference.json", *(f"configs/{name}" for name in TRAINING), "models/model.pt")


def make_environment(env: Path) -> None:
    """A virtual environment with MONAI Label (several hundred MB)."""
    subprocess.run([sys.executable, "-m", "venv", str(env)], check=True)
    subprocess.run([str(env / "bin" / "pip"), "install", *PACKAGES], check=True)


def add_bundle(bundle: Path, app: Path) -> None:
    """A copy of the bundle in the app, with the package, and the training that MONAI Label starts."""
    copy = app / "model" / bundle.name
    copy_with_package(bundle, copy)
    # Trainings write models/model.pt, which is what the server infers from.
    shutil.copy(bundle / "models" / "model.pt", copy / "models" / "model_shipped.pt")
    training = ConfigParser.load_config_files([str(bundle / "configs" / name) for name in TRAINING])
    ConfigParser.export_config_file(training, str(copy / "configs" / "train.json"), indent=4)


def make_app(env: Path, app: Path, bundles: Sequence[Path]) -> list[str]:
    """MONAI Label's app with the bundles in it.

    Args:
        env: the environment with MONAI Label.
        app: folder of the app.
        bundles: folders of bundles.

    Returns:
        the command that starts the server, without the folder of scans.

    Raises:
        ValueError: If the environment lacks MONAI Label, a folder is not a bundle's, or there is an app already.
            Nothing is copied then.
    """
    samples = env / "monailabel" / "sample-apps" / "monaibundle"
    if not (samples / "main.py").is_file():
        make = f"python tools/release/monai_label.py environment --env {shlex.quote(str(env))}"
        raise ValueError(
            f"env must be an environment with MONAI Label, {samples / 'main.py'} is missing; make it with: {make}"
        )
    for bundle in bundles:
        missing = [name for name in NEEDED if not (bundle / name).is_file()]
        if missing:
            raise ValueError(f"bundles must be folders with {', '.join(NEEDED)}; {bundle} has no {missing[0]}.")
    if app.exists():
        raise ValueError(f"app must not exist yet (it holds what was trained in it), {app} does.")
    shutil.copytree(samples, app)
    with open(app / "main.py", "a") as file:
        file.write(RESPOND_WITH_REASON)
    for bundle in bundles:
        add_bundle(bundle, app)
    conf = {"models": ",".join(b.name for b in bundles), "zoo_source": "local", "sam2": "false"}
    # By default MONAI Label listens on all addresses of the machine, without a password.
    words = [str(env / "bin" / "python"), "-m", "monailabel.main", "start_server", "--host", "127.0.0.1"]
    words += ["--app", str(app)]
    return [*words, *(w for key, value in conf.items() for w in ("--conf", key, value))]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["environment", "app"])
    parser.add_argument("--env", type=Path, default=Path(".monai_label"))
    parser.add_argument("--app", type=Path, default=Path("monai_label_app"))
    parser.add_argument("--bundles", type=Path, nargs="+", default=sorted(REPOSITORY.glob("bundles/*_segmentation")))
    args = parser.parse_args(argv)
    if args.step == "environment":
        make_environment(args.env)
        return
    bundles = [bundle.resolve() for bundle in args.bundles]  # "." has no name
    try:
        words = make_app(args.env.absolute(), args.app.absolute(), bundles)
    except ValueError as error:
        parser.error(str(error))
    print(shlex.join([*words, "--studies", "MY_SCANS"]))


if __name__ == "__main__":
    main()
