"""tools/release/monai_label.py: an app is made whole or not at all, and its command can be pasted."""

import json
import shlex
import sys
from types import ModuleType, SimpleNamespace

import pytest

from .helpers import tool

TORCH = "__version__ = '2.13.0+{}'\nclass version:\n    cuda = {!r}\n"
FITS = "__version__ = '0.28.0'\n"
FILES = ("inference.json", "train.json", "finetune.json", "monai_label.json")


def install_torch(env, build="cpu", cuda=None, torchvision=FITS):
    """Puts a Python into an environment that finds these modules of torch and torchvision."""
    packages = env / "packages"
    (packages / "torchvision-0.28.0.dist-info").mkdir(parents=True, exist_ok=True)
    (packages / "torch.py").write_text(TORCH.format(build, cuda))
    (packages / "torchvision.py").write_text(torchvision)
    metadata = "Metadata-Version: 2.1\nName: torchvision\nVersion: 0.28.0+cu130\n"
    (packages / "torchvision-0.28.0.dist-info" / "METADATA").write_text(metadata)
    (env / "bin").mkdir(exist_ok=True)
    python = env / "bin" / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(packages))} exec {sys.executable} "$@"\n')
    python.chmod(0o755)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with an environment, as far as its app is concerned, and a bundle."""
    app = tmp_path / "env" / "monailabel" / "sample-apps" / "monaibundle"
    app.mkdir(parents=True)
    (app / "main.py").write_text("class MyApp:\n    infer = None\n\nclass BundleInferTask:\n    pass\n")
    install_torch(tmp_path / "env")
    for name in ("configs", "models"):
        (tmp_path / "bundle" / name).mkdir(parents=True)
    for name in FILES:
        (tmp_path / "bundle" / "configs" / name).write_text(json.dumps({"lr": 1, name: name}))
    (tmp_path / "bundle" / "models" / "model.pt").write_bytes(b"weights")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command_can_be_pasted(folder, capsys):
    tool("release/monai_label").main(["app", "--env", "env", "--app", "my app", "--bundles", "bundle"])
    assert shlex.split(capsys.readouterr().out) == [
        f"{folder}/env/bin/python", "-m", "monailabel.main", "start_server", "--host", "127.0.0.1",
        "--app", f"{folder}/my app",
        "--conf", "models", "bundle", "--conf", "zoo_source", "local", "--conf", "sam2", "false",
        "--studies", "MY_SCANS",
    ]  # fmt: skip
    copy = folder / "my app" / "model" / "bundle"
    train = json.loads((copy / "configs" / "train.json").read_text())
    assert train == {"lr": 1, **{name: name for name in FILES if name != "inference.json"}}
    assert (copy / "models" / "model_shipped.pt").read_bytes() == b"weights"


def test_a_bundle_is_named_by_its_folder_where_it_is_given_as_a_dot(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder / "bundle")
    tool("release/monai_label").main(["app", "--env", "../env", "--app", "../app", "--bundles", "."])
    assert "--conf models bundle" in capsys.readouterr().out
    assert (folder / "app" / "model" / "bundle" / "configs" / "train.json").is_file()


@pytest.mark.parametrize("missing, message", [
    ("env/monailabel/sample-apps/monaibundle/main.py", "env must be an environment with MONAI Label, {} is missing; "
     "make it with: python tools/release/monai_label.py environment --env {folder}/env"),
    ("bundle/configs/inference.json", "{folder}/bundle has no configs/inference.json."),
    ("bundle/configs/train.json", "{folder}/bundle has no configs/train.json."),
    ("bundle/configs/finetune.json", "{folder}/bundle has no configs/finetune.json."),
    ("bundle/models/model.pt", "{folder}/bundle has no models/model.pt."),
])  # fmt: skip
def test_a_slip_is_reported_in_one_line_and_leaves_no_app(folder, missing, message, capsys):
    (folder / missing).unlink()
    with pytest.raises(SystemExit):
        tool("release/monai_label").main(["app", "--env", "env", "--app", "app", "--bundles", "bundle"])
    error = capsys.readouterr().err.splitlines()[-1]
    assert "error: " in error and error.endswith(message.format(folder / missing, folder=folder))
    assert not (folder / "app").exists()


MISMATCH = "raise RuntimeError('operator torchvision::nms\\n does not exist')\n"


@pytest.mark.parametrize("build, cuda", [("cpu", None), ("cu130", "13.0")])
def test_a_torchvision_of_another_build_is_named_before_the_command_with_what_mends_it(folder, capsys, build, cuda):
    install_torch(folder / "env", build, cuda, MISMATCH)
    with pytest.raises(SystemExit):
        tool("release/monai_label").main(["app", "--env", "env", "--app", "app", "--bundles", "bundle"])
    out, err = capsys.readouterr()
    assert out == "" and not (folder / "app").exists()
    assert err.splitlines()[-1].endswith(
        f"error: env must have torch and torchvision of one build, torchvision of {folder}/env does not fit its torch "
        f"2.13.0+{build} (operator torchvision::nms does not exist); mend it with: {folder}/env/bin/pip install "
        f"--force-reinstall --no-deps torchvision==0.28.0 --index-url https://download.pytorch.org/whl/{build}"
    )


def test_an_environment_without_torch_is_named(folder, capsys):
    (folder / "env" / "packages" / "torch.py").write_text("raise ImportError('libtorch.so is missing')\n")
    with pytest.raises(SystemExit):
        tool("release/monai_label").main(["app", "--env", "env", "--app", "app", "--bundles", "bundle"])
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.endswith(f"those of {folder}/env cannot be used: ImportError: libtorch.so is missing")


def test_the_environment_is_built_with_one_torch_and_checked(tmp_path, monkeypatch, capsys):
    module, calls = tool("release/monai_label"), []

    def run(words, env=None, **options):
        calls.append((words, env))
        if words[1:3] == ["-m", "venv"]:
            install_torch(tmp_path / "env", torchvision=MISMATCH)
        if words[1] == "-c":
            return run_for_real(words, **options)

    run_for_real = module.subprocess.run
    monkeypatch.setattr(module.subprocess, "run", run)
    with pytest.raises(SystemExit):
        module.main(["environment", "--env", str(tmp_path / "env")])
    assert "operator torchvision::nms does not exist" in capsys.readouterr().err
    (install, variables) = calls[1]
    assert install[1] == "install" and "torch==2.13.0" in install
    for name in ("PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT"):  # of older and of newer versions of pip
        with open(variables[name]) as file:
            assert file.read() == "torch==2.13.0\n"


class InferTask:
    """MONAI Label's, as far as the names of labels are concerned."""

    output_label_key = "pred"

    def __call__(self, request, callbacks):
        assert callbacks["other"] == "kept"
        data = callbacks["after the transforms"]({"pred": SimpleNamespace(meta=request["meta"])})
        assert data["pred"].meta is request["meta"]
        return "label.nii.gz", {"label_names": {"anterior": 1}, "latencies": 2}


@pytest.mark.parametrize("meta, names", [
    ({"head": SimpleNamespace(class_names=["left a", "right a"])}, {"left a": 1, "right a": 2}),
    ({}, {"anterior": 1}),
])  # fmt: skip
def test_the_reply_has_the_names_of_a_head_s_labels(monkeypatch, meta, names):
    module = ModuleType("basic_infer")
    module.CallBackTypes = SimpleNamespace(POST_TRANSFORMS="after the transforms")
    monkeypatch.setitem(sys.modules, "monailabel.tasks.infer.basic_infer", module)
    for parent in ("monailabel", "monailabel.tasks", "monailabel.tasks.infer"):
        monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
    main = {"BundleInferTask": InferTask}
    exec(tool("release/monai_label").NAME_LABELS, main)
    result = main["BundleInferTask"]()({"meta": meta}, callbacks={"other": "kept"})
    assert result == ("label.nii.gz", {"label_names": names, "latencies": 2})


def test_an_app_that_is_there_is_left_alone(folder, capsys):
    (folder / "app").mkdir()
    with pytest.raises(SystemExit):
        tool("release/monai_label").main(["app", "--env", "env", "--app", "app", "--bundles", "bundle"])
    assert f"error: app must not exist yet (it holds what was trained in it), {folder}/app" in capsys.readouterr().err
    assert list((folder / "app").iterdir()) == []
