"""tools/release/monai_label.py: an app is made whole or not at all, and its command can be pasted."""

import json
import shlex

import pytest

from .helpers import tool

FILES = ("inference.json", "train.json", "finetune.json", "monai_label.json")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with an environment, as far as its app is concerned, and a bundle."""
    app = tmp_path / "env" / "monailabel" / "sample-apps" / "monaibundle"
    app.mkdir(parents=True)
    (app / "main.py").write_text("class MyApp:\n    infer = None\n")
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


def test_an_app_that_is_there_is_left_alone(folder, capsys):
    (folder / "app").mkdir()
    with pytest.raises(SystemExit):
        tool("release/monai_label").main(["app", "--env", "env", "--app", "app", "--bundles", "bundle"])
    assert f"error: app must not exist yet (it holds what was trained in it), {folder}/app" in capsys.readouterr().err
    assert list((folder / "app").iterdir()) == []
