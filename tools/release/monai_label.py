"""Sets up MONAI Label with the bundles: an environment of its own, and its app "monaibundle" with both in it.

    python tools/release/monai_label.py environment --env .monai_label
    python tools/release/monai_label.py app --env .monai_label --app monai_label_app

The second prints the command that starts the server. MONAI Label wants versions of its own (numpy below 2), so it gets
an environment; the bundles bring a copy of their package. It knows no configs but inference.json and train.json: the
app's train.json is the bundle's, with finetune.json and monai_label.json (see there) applied to it as overlays.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from build_bundle import REPOSITORY, copy_with_package
from monai.bundle import ConfigParser

# What MONAI Label 0.8.5 runs with; its own requirements leave newer versions in that it does not.
TORCH = "torch==2.13.0"
PACKAGES = ["monailabel==0.8.5", TORCH, "pydicom<3", "pynetdicom<3", "dicomweb-client[gcp]<0.60"]
# Run in the environment: which torch and torchvision it has, and why they do not fit, if so.
FIT = """
import json, sys
from importlib.metadata import version
import torch
cuda = torch.version.cuda
found = {"torch": torch.__version__, "build": "cu" + cuda.replace(".", "") if cuda else "cpu", "fault": ""}
try:
    import torchvision
except Exception as error:
    found["fault"] = str(error)
found["torchvision"] = version("torchvision").split("+")[0]
json.dump(found, sys.stdout)
"""
# The end of the app's main.py. Without the first the response to an unusable scan is "Internal Server Error", and only
# the log has the reason. Without the second the labels of a whole head get the names of a crop's, from metadata.json.
# Without the third the log does not say at which level a scan entered.
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
NAME_LABELS = """

class BundleInferTask(BundleInferTask):
    def __call__(self, request, callbacks=None):
        from monailabel.tasks.infer.basic_infer import CallBackTypes

        names = {}

        def note_names(data):
            head = getattr(data[self.output_label_key], "meta", {}).get("head")
            if head is not None:
                names.update({name: index for index, name in enumerate(head.class_names, start=1)})
            return data

        file, result = super().__call__(request, {**(callbacks or {}), CallBackTypes.POST_TRANSFORMS: note_names})
        if names:
            result["label_names"] = names
        return file, result
"""
LOG_LEVELS = """

logging.getLogger("rare_unet_networks").setLevel(logging.DEBUG)
"""
TRAINING = ("train.json", "finetune.json", "monai_label.json")
NEEDED = ("configs/inference.json", *(f"configs/{name}" for name in TRAINING), "models/model.pt")


def make_environment(env: Path) -> None:
    """A virtual environment with MONAI Label; docs/monai_label.md says how much disk it takes.

    Raises:
        ValueError: If its torch and torchvision do not fit.
    """
    subprocess.run([sys.executable, "-m", "venv", str(env)], check=True)
    # MONAI Label requires SAM 2, which is built with a torch of its own: the newest, of several GB, if it is not named.
    constraints = env / "constraints.txt"
    constraints.write_text(f"{TORCH}\n")
    variables = {name: str(constraints.absolute()) for name in ("PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT")}
    install = [str(env / "bin" / "pip"), "install", *PACKAGES]
    subprocess.run(install, check=True, env={**os.environ, **variables})
    check_torchvision(env)


def check_torchvision(env: Path) -> None:
    """Checks that torchvision can be imported; the server stops if it is of another build than torch.

    Raises:
        ValueError: If it cannot; the message has the command that mends it.
    """
    python = env / "bin" / "python"
    done = subprocess.run([str(python), "-c", FIT], capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ValueError(f"env must have torch and torchvision, those of {env} cannot be used: {reason}")
    found = json.loads(done.stdout.splitlines()[-1])
    if found["fault"]:
        words = [str(env / "bin" / "pip"), "install", "--force-reinstall", "--no-deps"]
        words += [f"torchvision=={found['torchvision']}"]
        words += ["--index-url", f"https://download.pytorch.org/whl/{found['build']}"]
        raise ValueError(
            f"env must have torch and torchvision of one build, torchvision of {env} does not fit its torch "
            f"{found['torch']} ({' '.join(found['fault'].split())}); mend it with: {shlex.join(words)}"
        )


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
        ValueError: If the environment lacks MONAI Label, its torch and torchvision do not fit, a folder is not a
            bundle's, or there is an app already. Nothing is copied then.
    """
    samples = env / "monailabel" / "sample-apps" / "monaibundle"
    if not (samples / "main.py").is_file():
        make = f"python tools/release/monai_label.py environment --env {shlex.quote(str(env))}"
        raise ValueError(
            f"env must be an environment with MONAI Label, {samples / 'main.py'} is missing; make it with: {make}"
        )
    check_torchvision(env)
    for bundle in bundles:
        missing = [name for name in NEEDED if not (bundle / name).is_file()]
        if missing:
            raise ValueError(f"bundles must be folders with {', '.join(NEEDED)}; {bundle} has no {missing[0]}.")
    if app.exists():
        raise ValueError(f"app must not exist yet (it holds what was trained in it), {app} does.")
    shutil.copytree(samples, app)
    with open(app / "main.py", "a") as file:
        file.write(RESPOND_WITH_REASON + NAME_LABELS + LOG_LEVELS)
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
    bundles = [bundle.resolve() for bundle in args.bundles]  # "." has no name
    try:
        if args.step == "environment":
            make_environment(args.env)
            return
        words = make_app(args.env.absolute(), args.app.absolute(), bundles)
    except ValueError as error:
        parser.error(str(error))
    print(shlex.join([*words, "--studies", "MY_SCANS"]))


if __name__ == "__main__":
    main()
