"""tools/verify_bundle: both bundles pass, and a bundle that is broken fails the check that is there for it."""

import hashlib
import json
import os
import re
import shutil
import sys

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.networks.nets import UNet

from rare_unet_networks.networks import RAREUNet
from tools.verify_bundle import __main__ as tool
from tools.verify_bundle.common import Bundle

from ..bundles.conftest import BUNDLES, REPOSITORY
from ..bundles.documents import blocks, run_script

TOOLS = REPOSITORY / "tools"
SCHEMA = REPOSITORY / "tests/bundles/meta_schema_20240725.json"
HIPPOCAMPUS = BUNDLES["hippocampus_mri_segmentation"]
COMPLETE = ("train.json", "evaluate.json")
OVERRIDES = [
    (COMPLETE, "dataset_dir", str(HIPPOCAMPUS / "sample/Task04_Hippocampus")),
    (COMPLETE, "splits_file", str(REPOSITORY / "tests/bundles/sample_splits.json")),
]


@pytest.fixture
def verified(tmp_path):
    """A function that runs one check on a bundle."""

    def run(name, bundle, given=(), sample=None):
        work = tmp_path / f"work_{len(list(tmp_path.iterdir()))}"
        work.mkdir()
        return tool.outcome(tool.CHECKS[name], Bundle(bundle, work, list(given), SCHEMA, sample))

    return run


def contents(bundle):
    """Digest of every file: nothing may be added to a bundle, nor written anew."""
    return {p: hashlib.sha256(p.read_bytes()).digest() for p in sorted(bundle.rglob("*")) if p.is_file()}


COMMANDS = [text for _, text in blocks(REPOSITORY / "docs" / "verify.md")]


HIPPOCAMPUS_COMMAND, BRAIN_COMMAND = COMMANDS
MINUTES = ("TorchScript", "command", "thick slices", "orientation")  # together, of the tumour network
CASES = [
    pytest.param(HIPPOCAMPUS_COMMAND, (), id="hippocampus"),
    pytest.param(BRAIN_COMMAND, MINUTES, id="brain tumour, what takes seconds", marks=pytest.mark.slow),
    pytest.param(BRAIN_COMMAND, (), id="brain tumour", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("command, skipped", CASES)
def test_a_bundle_is_verified_by_the_command_of_the_documentation(command, skipped):
    (bundle,) = (b for b in BUNDLES.values() if f"B=bundles/{b.name}\n" in command)
    before = contents(bundle)
    threads = os.environ.get("OMP_NUM_THREADS", "2")  # the tumour network runs on its largest input
    command = " ".join([command.rstrip(), *(f'--skip "{check}"' for check in skipped)])
    lines = run_script(command, REPOSITORY, OMP_NUM_THREADS=threads).splitlines()
    assert sorted(line for line in lines[:-1] if not line.startswith("ok: ")) == [
        f"not checked: {check}: left out" for check in sorted(skipped)
    ]
    n = len(skipped)
    assert lines[-1] == f"{bundle.name}: {17 - n} ok, 0 FAILED, {n} not checked" and len(lines) == 18
    assert contents(bundle) == before


def copied(tmp_path):
    bundle = tmp_path / HIPPOCAMPUS.name
    shutil.copytree(HIPPOCAMPUS, bundle, ignore=shutil.ignore_patterns("output", "data"))
    return bundle


def edited(name, change):
    """A mutation: a change of the content of a config."""

    def mutate(bundle):
        path = bundle / "configs" / name
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return mutate


def entry(name, key, value):
    """A mutation: another value of an entry, with ``#`` between its parts."""

    def change(content):
        *parts, last = [int(part) if part.isdigit() else part for part in key.split("#")]
        for part in parts:
            content = content[part]
        content[last] = value

    return edited(name, change)


def weights(make):
    def mutate(bundle):
        path = bundle / "models" / "model.pt"
        torch.save(make(torch.load(path, weights_only=True)), path)

    return mutate


def another_network(state):
    return RAREUNet(3, 1, 3, channels=(4, 8, 8, 8, 8), fine_convs=1).state_dict()


def large_file(bundle):
    with open(bundle / "models" / "large.pt", "wb") as file:
        file.truncate(25_000_001)


def other_torchscript(bundle):
    torch.jit.script(torch.nn.Conv3d(1, 3, 1)).save(str(bundle / "models" / "model.ts"))


def predictions_of_half_size(content):
    content["to_labels"].append({"_target_": "Zoomd", "keys": "pred", "zoom": 0.5, "keep_size": False})


def axes_as_stored(content):
    del content["prepare"][1]


def writes_beside_itself(content):
    content["initialize"].append("$open('left.txt', 'w').close()")


# name: check, what is broken, what the check says
BROKEN = {
    "no licence": ("files", lambda b: (b / "LICENSE").unlink(), "LICENSE is missing"),
    "no text": ("files", lambda b: (b / "docs/README.md").write_text(""), "docs/README.md is empty"),
    "no output_dir": ("keys", edited("inference.json", lambda c: c.pop("output_dir")), "has no output_dir"),
    "new version": ("version", entry("metadata.json", "version", "9.0.0"), "9.0.0 is not in the changelog"),
    "large file": ("large files", large_file, "models/large.pt has more than 25 MB"),
    "no task": ("schema", edited("metadata.json", lambda c: c.pop("task")), "'task' is a required property"),
    "other channels": (
        "network_def", entry("train.json", "network_def#channels", [16, 32, 64, 96, 64]),
        r"train.json: RAREUNet with channels \[16, 32, 64, 96, 64\] where inference.json has \[16, 32, 64, 96, 128\]",
    ),
    "validated flipped": (
        "preprocessing", entry("train.json", "prepare#1#axcodes", "LAS"),
        "train.json: Orientationd with axcodes LAS where inference.json has RAS",
    ),
    "trained flipped": (
        "preprocessing", entry("train.json", "train#orient#axcodes", "LAS"),
        "train.json, training: Orientationd with axcodes LAS where inference.json has RAS",
    ),
    "another scaling": (
        "preprocessing", entry("train.json", "scaling#upper", 100),
        "train.json: ScaleIntensityRangePercentilesd with upper 100 where inference.json has 99.5",
    ),
    "a property gone": (
        "properties", edited("inference.json", lambda c: c.update(input=c.pop("dataset_dir"))), "dataset_dir",
    ),
    "weights of another network": ("weights", weights(another_network), "does not fit network_def"),
    "weights in a checkpoint": ("weights", weights(lambda state: {"model": state}), "not a plain state dict"),
    "weights not loaded": ("weights", edited("inference.json", lambda c: c["handlers"].pop(0)), "not those of models"),
    "another TorchScript": ("TorchScript", other_torchscript, "model.ts differs from the network"),
    "stated output of another type": (
        "network in and out", entry("metadata.json", "network_data_format#outputs#pred#dtype", "float16"),
        "dtype of output data `torch.float32` doesn't match",
    ),
    "values out of range": (
        "input", entry("metadata.json", "network_data_format#inputs#image#value_range", [0, 0.5]), "values of 0 to 1",
    ),
    "a wrong figure": (
        "accuracy", entry("metadata.json", "verification#dice#hippocampus_067#all", 0.95),
        r"hippocampus_067, all classes: Dice 0.92\d*, stored is 0.95 ± 0.005",
    ),
    "a figure without a scan": (
        "accuracy", entry("metadata.json", "verification#dice#hippocampus_001", {}), "no such case",
    ),
    "predictions of half the size": (
        "output grid", edited("inference.json", predictions_of_half_size),
        r"shape \(18, 21, 20\), the scan has \(36, 42, 41\)",
    ),
    "writing beside itself": ("command", edited("inference.json", writes_beside_itself), "it left left.txt"),
    "a better figure of thick slices": (
        "thick slices", entry("metadata.json", "verification#thick_slices#hippocampus_067#axis1", 1.0),
        "along axis1 as one: Dice 0.9.*, expected 0.995 at least",
    ),
    "axes as stored": ("orientation", edited("inference.json", axes_as_stored), "voxels differ of"),
}  # fmt: skip


SLOW_CHECKS = ("TorchScript", "command", "orientation", "output grid", "thick slices")  # they segment many scans
CASES = [pytest.param(n, marks=pytest.mark.slow if case[0] in SLOW_CHECKS else ()) for n, case in BROKEN.items()]


@pytest.mark.parametrize("name", CASES)
def test_a_broken_bundle_fails_its_check(name, verified, tmp_path, monkeypatch):
    check, mutate, message = BROKEN[name]
    monkeypatch.chdir(tmp_path)
    bundle = copied(tmp_path)
    mutate(bundle)
    state, text = verified(check, bundle, OVERRIDES)
    assert state == "FAILED", text
    assert re.search(message, text), text


@pytest.mark.parametrize(
    "check, message",
    [
        ("accuracy", "no labelled sample .* give --sample FOLDER"),
        ("orientation", "no labelled sample"),
        ("properties", r"train.json: there is no .*/data/Task04_Hippocampus; give --override train.json:dataset_dir="),
    ],
)
def test_what_is_not_there_is_not_checked_and_not_counted_as_passed(check, message, verified, tmp_path):
    bundle = copied(tmp_path)
    shutil.rmtree(bundle / "sample")
    given = [(("evaluate.json",), key, value) for _, key, value in OVERRIDES]
    given.append((("inference.json",), "dataset_dir", str(HIPPOCAMPUS / "sample/images")))
    state, text = verified(check, bundle, given)
    assert state == "not checked"
    assert re.search(message, text), text


def test_figures_are_stored_and_read_again(tmp_path, monkeypatch, capsys):
    bundle = copied(tmp_path)
    shipped = json.loads((bundle / "configs" / "metadata.json").read_text())
    edited("metadata.json", lambda c: c.pop("verification"))(bundle)
    monkeypatch.setattr(tool, "CHECKS", {"accuracy": tool.CHECKS["accuracy"]})
    assert tool.main([str(bundle)]) == 0
    assert capsys.readouterr().out.startswith("not checked: accuracy: no figures")
    assert tool.main([str(bundle), "--store"]) == 0
    assert capsys.readouterr().out.startswith("ok: accuracy: Dice of hippocampus_067 1: 0.87")
    stored = json.loads((bundle / "configs" / "metadata.json").read_text())
    for kind in ("dice", "thick_slices"):
        for case, figures in shipped["verification"].pop(kind).items():
            assert stored["verification"][kind].pop(case) == pytest.approx(figures, abs=0.005)
    assert stored == {**shipped, "verification": {"tolerance": 0.005, "dice": {}, "thick_slices": {}}}


def test_the_exit_status_tells_of_a_failed_check_and_what_is_left_out_is_said(tmp_path, monkeypatch, capsys):
    bundle = copied(tmp_path)
    (bundle / "LICENSE").unlink()
    monkeypatch.setattr(tool, "CHECKS", {name: tool.CHECKS[name] for name in ("files", "keys", "command")})
    assert tool.main([str(bundle), "--quick", "--skip", "keys"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "FAILED: files: LICENSE is missing",
        "not checked: keys: left out",
        "not checked: command: left out by --quick",
        f"{bundle.name}: 0 ok, 1 FAILED, 2 not checked",
    ]


@pytest.mark.parametrize("given, message", [
    ("no_such=1", "no config has an entry no_such to override"),
    ("train.json:input=1", "train.json has no entry input to override"),
])  # fmt: skip
def test_an_override_that_no_config_has_is_an_error(given, message):
    with pytest.raises(SystemExit, match=message):
        tool.main([str(HIPPOCAMPUS), "--override", given])


@pytest.mark.parametrize("check, file", [
    ("keys", "configs/train.json"),
    ("network in and out", "configs/inference.json"),
    ("TorchScript", "configs/metadata.json"),
    ("version", "configs/metadata.json"),
    ("schema", "configs/metadata.json"),
    ("keys", "configs/finetune.json"),
])  # fmt: skip
def test_a_file_that_is_not_json_is_named(check, file, verified, tmp_path):
    bundle = copied(tmp_path)
    (bundle / file).write_text('{"a": 1')
    expected = f"{file} is not JSON: Expecting ',' delimiter: line 1 column 8 (char 7)"
    assert verified(check, bundle) == ("FAILED", expected)


NOT_JSON = "configs/train.json is not JSON: Expecting ',' delimiter: line 1 column 8 (char 7)"


@pytest.mark.parametrize(
    "given", ["train.json:dataset_dir=.", "train.json:train#dataset#cache_rate=0", "dataset_dir=."]
)
def test_a_file_that_is_not_json_keeps_no_other_check_from_its_line(given, tmp_path, monkeypatch, capsys):
    bundle = copied(tmp_path)
    (bundle / "configs" / "train.json").write_text('{"a": 1')
    monkeypatch.setattr(tool, "CHECKS", {name: tool.CHECKS[name] for name in ("files", "properties", "input")})
    assert tool.main([str(bundle), "--override", given]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "ok: files: 6 files",
        f"FAILED: properties: {NOT_JSON}",
        "ok: input: 1 channel(s) of float32, values of 0 to 1",
        f"{bundle.name}: 2 ok, 1 FAILED, 0 not checked",
    ]


@pytest.mark.parametrize("given, message", [
    ("no_such=1", f"no config has an entry no_such to override; {NOT_JSON}"),
    ("evaluate.json:no_such=1", "evaluate.json has no entry no_such to override"),
])  # fmt: skip
def test_an_override_that_no_readable_config_has_is_an_error(given, message, tmp_path):
    bundle = copied(tmp_path)
    (bundle / "configs" / "train.json").write_text('{"a": 1')
    with pytest.raises(SystemExit, match=f"^error: {re.escape(message)}$"):
        tool.main([str(bundle), "--override", given])


def test_without_jsonschema_the_schema_is_not_checked(verified, monkeypatch):
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    state, text = verified("schema", HIPPOCAMPUS)
    assert state == "not checked"
    assert re.search("jsonschema.*: pip install jsonschema$", text), text


def test_the_checks_of_predictions_say_shortly_why_there_are_none(verified, tmp_path):
    bundle = copied(tmp_path)
    path = bundle / "models" / "model.pt"
    path.write_bytes(path.read_bytes()[:1000])
    state, text = verified("accuracy", bundle)
    assert state == "FAILED"
    assert re.fullmatch(r"inference failed: ValueError: .{108} …", text), text


@pytest.mark.parametrize("words, message", [
    (["/nowhere"], "there is no /nowhere/configs/metadata.json"),
    ([str(HIPPOCAMPUS), "--override", "no_value"], r"expected \[FILE,…:\]KEY=VALUE, got 'no_value'"),
    ([str(HIPPOCAMPUS), "--schema", "/nowhere"], "there is no /nowhere"),
    ([str(HIPPOCAMPUS), "--schema", __file__], f"must be a JSON file, {re.escape(__file__)} is not: Extra data"),
    ([str(HIPPOCAMPUS), "--schema", str(TOOLS)], f"--schema must be a JSON file, {TOOLS} is not: .*directory"),
])  # fmt: skip
def test_a_slip_on_the_command_line_is_named(words, message, capsys):
    with pytest.raises(SystemExit):
        tool.main(words)
    assert re.search(message, capsys.readouterr().err)


def of_monai_alone(root):
    """A bundle as MONAI's model-zoo has them, with its usual entries and nothing of this package."""
    size = [16, 16, 16]
    load = [
        {"_target_": "LoadImaged", "keys": "@keys"},
        {"_target_": "EnsureChannelFirstd", "keys": "@keys"},
        {"_target_": "Orientationd", "keys": "@keys", "axcodes": "RAS", "labels": None},
        {"_target_": "Spacingd", "keys": "@keys", "pixdim": [1.5, 1.5, 1.5], "mode": "@modes"},
        {"_target_": "ScaleIntensityd", "keys": "image"},
    ]
    network = dict(spatial_dims=3, in_channels=1, out_channels=2, channels=[4, 8], strides=[2])
    common = {
        "imports": ["$import glob", "$import torch", "$import scripts"],
        "bundle_root": ".",
        "dataset_dir": "@bundle_root",
        "output_dir": "$@bundle_root + '/eval'",
        "device": "$torch.device('cpu')",
        "network_def": {"_target_": "UNet", **network},
        "network": "$@network_def.to(@device)",
    }
    window = {"_target_": "SlidingWindowInferer", "roi_size": size, "overlap": 0.5}
    loader = {"_target_": "CheckpointLoader", "load_path": "$@bundle_root + '/models/model.pt'",
              "load_dict": {"model": "@network"}}  # fmt: skip
    invert = {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image",
              "nearest_interp": False, "to_tensor": True}  # fmt: skip
    inference = {
        **common,
        "keys": "image",
        "modes": "bilinear",
        "datalist": "$scripts.scans(@dataset_dir)",
        "preprocessing": {"_target_": "Compose", "transforms": [*load, {"_target_": "EnsureTyped", "keys": "image"}]},
        "dataset": {"_target_": "Dataset", "data": "$[{'image': i} for i in @datalist]", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1},
        "inferer": window,
        "postprocessing": {"_target_": "Compose", "transforms": [
            invert, {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
            {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir"},
        ]},
        "handlers": [loader],
        "evaluator": {"_target_": "SupervisedEvaluator", "device": "@device", "val_data_loader": "@dataloader",
                      "network": "@network", "inferer": "@inferer", "postprocessing": "@postprocessing",
                      "val_handlers": "@handlers"},
        "run": ["$@evaluator.run()"],
    }  # fmt: skip
    items = "$[{'image': i, 'label': i.replace('imagesTr', 'labelsTr')} for i in @images]"
    train = {
        **common,
        "keys": ["image", "label"],
        "modes": ["bilinear", "nearest"],
        "images": "$list(sorted(glob.glob(@dataset_dir + '/imagesTr/*.nii.gz')))",
        "train": {
            "preprocessing": {"_target_": "Compose", "transforms": [
                *load, {"_target_": "RandFlipd", "keys": "@keys", "prob": 0.5, "spatial_axis": 0},
            ]},
            "dataset": {"_target_": "Dataset", "data": items, "transform": "@train#preprocessing"},
            "dataloader": {"_target_": "DataLoader", "dataset": "@train#dataset"},
            "inferer": {"_target_": "SimpleInferer"},
            "trainer": {
                "_target_": "SupervisedTrainer", "max_epochs": 1, "device": "@device",
                "train_data_loader": "@train#dataloader", "network": "@network",
                "loss_function": {"_target_": "DiceLoss", "to_onehot_y": True, "softmax": True},
                "optimizer": "$torch.optim.Adam(@network.parameters())", "inferer": "@train#inferer",
            },
        },
        "validate": {"preprocessing": {"_target_": "Compose", "transforms": load}},
        "run": ["$@train#trainer.run()"],
    }  # fmt: skip
    tensor = dict(type="image", format="magnitude", spatial_shape=size, dtype="float32", is_patch_data=True)
    ends = {
        "inputs": {"image": {**tensor, "num_channels": 1, "value_range": [0, 1]}},
        "outputs": {"pred": {**tensor, "num_channels": 2, "value_range": []}},
    }
    kept = ("schema", "monai_version", "pytorch_version", "numpy_version", "required_packages_version", "authors",
            "copyright")  # fmt: skip
    shipped = json.loads((HIPPOCAMPUS / "configs" / "metadata.json").read_text())
    metadata = {key: shipped[key] for key in kept}
    metadata |= {"version": "1.0", "changelog": {"1.0": "first"}, "task": "a test", "description": "a test"}
    metadata["network_data_format"] = ends
    overlays = {"multi_gpu_train.json": {"network": "$torch.nn.DataParallel(@network_def)"}}
    files = {"inference.json": inference, "train.json": train, "metadata.json": metadata, **overlays}
    for folder in ("configs", "models", "docs", "scripts", "imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    for name, content in files.items():
        (root / "configs" / name).write_text(json.dumps(content))
    script = "import glob\n\n\ndef scans(folder):\n    return sorted(glob.glob(folder + '/imagesTs/*.nii.gz'))\n"
    (root / "scripts" / "__init__.py").write_text(script)
    for name in ("LICENSE", "docs/README.md", "docs/data_license.txt"):
        (root / name).write_text("a text")
    torch.manual_seed(0)
    torch.save(UNet(**network).state_dict(), root / "models" / "model.pt")
    random = np.random.default_rng(0)
    label = np.zeros((20, 24, 18), np.uint8)
    label[5:15, 5:15, 5:15] = 1
    for folder, data in (("imagesTr", label + random.random(label.shape).astype(np.float32)), ("labelsTr", label)):
        nib.save(nib.Nifti1Image(data, np.diag([-1.0, 1.2, 2, 1])), root / folder / "a.nii.gz")
    return root


def test_a_bundle_of_monai_alone_can_be_verified(tmp_path, monkeypatch, capsys):
    bundle = of_monai_alone(tmp_path / "bundle")
    before = contents(bundle)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.delitem(sys.modules, "scripts", raising=False)  # of another bundle
    status = tool.main([str(bundle), "--schema", str(SCHEMA), "--store"])
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines[:-1] if not line.startswith("ok: ")] == []
    assert status == 0 and lines[-1] == "bundle: 17 ok, 0 FAILED, 0 not checked"
    after = contents(bundle)
    written = {str(p.relative_to(bundle)) for p in before.keys() | after.keys() if before.get(p) != after.get(p)}
    assert written == {"configs/metadata.json"}  # by --store
    assert not sys.dont_write_bytecode and "PYTHONDONTWRITEBYTECODE" not in os.environ
