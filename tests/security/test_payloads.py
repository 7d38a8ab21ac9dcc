"""One payload for each entrance of docs/security.md that is said to be no code: it must not be run."""

import json
import pickle
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from rare_unet_networks.cli.words import check_words
from rare_unet_networks.data import CaseRecords, collect_volumes, labelled_datalist
from rare_unet_networks.data.acquisitions import read_acquisitions
from rare_unet_networks.engines import exit_status
from rare_unet_networks.handlers import latest_checkpoint
from rare_unet_networks.networks import RAREUNet
from rare_unet_networks.networks.weights import load_weights
from rare_unet_networks.runtimes.export import export_runtimes
from rare_unet_networks.runtimes.load import load_runtime
from rare_unet_networks.utils import sha256

from ..bundles.conftest import SMALL, read, run
from .conftest import BRAIN, SMALL_BRAIN
from .payloads import EXPRESSION, MARKER, Pickled

VOXELS = np.random.default_rng(0).random((20, 24, 20), dtype=np.float32)
PYPICKLE = 18  # NIfTI's code of an extension that is a pickle


def segment(scans, output, weights, **options):
    """Runs the hippocampus bundle on a folder; returns its evaluator."""
    options = dict(input=str(scans), output_dir=str(output), checkpoint=weights, **SMALL, **options)
    return run("inference.json", **options).parser.get_parsed_content("evaluator")


def test_the_payloads_run_where_something_runs_them(tmp_path, monkeypatch):
    """Otherwise the tests below could not fail: a config's expression and a pickle are code."""
    monkeypatch.chdir(tmp_path)
    ConfigParser({"x": EXPRESSION}).get_parsed_content("x")
    (tmp_path / MARKER).rmdir()
    pickle.loads(pickle.dumps(Pickled()))
    (tmp_path / MARKER).rmdir()


@pytest.mark.parametrize("form", ["pickle", "zip", "legacy"])
def test_weights(folder, monkeypatch, form):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # torch's switch for programs that are less strict
    content = {"model": {"0.weight": Pickled()}}
    path = folder / "model.pt"
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(ValueError, match=r"model.pt: .*(Python objects besides tensors|damaged)"):
        load_weights(path, torch.nn.Linear(1, 1))


def test_the_checkpoint_of_a_training(folder):
    torch.save({"trainer": Pickled()}, folder / "checkpoint_epoch=1.pt")
    with pytest.raises(ValueError, match="none of the 1 checkpoints can be read"):
        latest_checkpoint(str(folder))


def nifti_with_extension(path):
    image = nib.Nifti1Image(VOXELS, np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension(PYPICKLE, pickle.dumps(Pickled())))
    nib.save(image, path)
    assert b"mkdir" in path.read_bytes()


def test_scans_and_their_names(folder, small_weights):
    scans, output = folder / "scans", folder / "out"
    scans.mkdir()
    np.save(scans / "array.npy", np.array([Pickled()], dtype=object), allow_pickle=True)
    for name in ("array_a.nii", "array_b.nii.gz"):
        shutil.copy(scans / "array.npy", scans / name)
    (scans / "pickle.nii").write_bytes(pickle.dumps(Pickled()))
    nifti_with_extension(scans / "extension.nii")
    for name in (EXPRESSION, f"@{EXPRESSION}", "%(x)s {0.__class__} =cmd()", "`mkdir executed`; $(mkdir executed)"):
        nib.save(nib.Nifti1Image(VOXELS, np.eye(4)), scans / f"{name}.nii")
    evaluator = segment(scans, output, small_weights)
    reasons = {path.removeprefix(f"{scans}/"): reason for path, reason in evaluator.failures}
    assert reasons.keys() == {"array_a.nii", "array_b.nii.gz", "pickle.nii"}
    assert all("not NIfTI but" in reason or "not a gzip file but" in reason for reason in reasons.values())
    assert len(list(output.glob("*_seg.nii.gz"))) == 5 and (output / f"{EXPRESSION}_seg.nii.gz").exists()
    assert {row["case"] for row in read(output / "volumes.csv")} >= {EXPRESSION, "extension"}


def test_a_path_of_the_command_line(folder):
    (folder / EXPRESSION).touch()
    words = ["/monai/bundle/__main__.py", "run", "inferring", "--input", EXPRESSION]
    with pytest.raises(SystemExit, match=r"is a file, but a value that begins with \$ is evaluated: write \./"):
        check_words(words)
    with pytest.raises(SystemExit, match="is a file, but"):
        check_words([*words[:3], f"--input={EXPRESSION}"])


def test_the_list_of_cases_of_a_task_with_modalities(folder, brain_weights):
    shutil.copy(next((BRAIN / "sample").glob("*/imagesTr/*.nii.gz")), folder / "scan.nii.gz")
    entries = [
        {"image": "scan.nii.gz", "case": EXPRESSION},
        {"image": EXPRESSION, "case": "path"},
        {"image": {EXPRESSION: "scan.nii.gz"}, "case": "modality"},
        {"image": [EXPRESSION, "%scan", "@scan"], "case": "names"},
        EXPRESSION,
    ]
    (folder / "list.json").write_text(json.dumps(entries))
    options = dict(input=str(folder / "list.json"), output_dir=str(folder / "out"), checkpoint=brain_weights)
    workflow = run("inference.json", bundle=BRAIN, **options, **SMALL_BRAIN)
    evaluator = workflow.parser.get_parsed_content("evaluator")
    assert len(evaluator.failures) == 4
    assert [p.name for p in (folder / "out").glob("*.nii.gz")] == [f"{EXPRESSION}_seg.nii.gz"]
    with pytest.raises(SystemExit):
        exit_status(evaluator)


def dataset(folder, splits, description=None):
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir()
        shutil.copy(folder / "scan.nii", folder / name / f"{EXPRESSION}.nii")
    (folder / "splits.json").write_text(json.dumps(splits))
    if description is not None:
        (folder / "dataset.json").write_text(json.dumps(description))
    return str(folder), str(folder / "splits.json")


def test_splits_and_the_names_of_their_cases(folder):
    nib.save(nib.Nifti1Image(VOXELS, np.eye(4)), folder / "scan.nii")
    paths = dataset(folder, {"train": [EXPRESSION, "@x", "%x", "../scan"], EXPRESSION: []})
    parser = ConfigParser(
        ConfigParser.load_config_file(BRAIN.parent / "hippocampus_mri_segmentation/configs/train.json")
    )
    parser.update({"dataset_dir": paths[0], "splits_file": paths[1]})
    (item,) = parser.get_parsed_content("train_data")
    assert item["case"] == EXPRESSION and item["image"] == str(folder / "imagesTr" / f"{EXPRESSION}.nii")


@pytest.mark.parametrize("key", ["channel_names", "labels", "file_ending"])
def test_the_description_of_a_dataset(folder, key):
    nib.save(nib.Nifti1Image(VOXELS, np.eye(4)), folder / "scan.nii")
    good = {"channel_names": {"0": "T1"}, "labels": {"background": 0}, "file_ending": ".nii"}
    paths = dataset(folder, {"train": [EXPRESSION]}, {**good, key: EXPRESSION})
    with pytest.raises(ValueError, match=f"dataset.json: {key} must"):
        labelled_datalist(*paths, "train")


def test_a_list_of_acquisitions(folder):
    (folder / "acquisitions.json").write_text(json.dumps([{"spacing": EXPRESSION}]))
    with pytest.raises(ValueError, match="is no acquisition"):
        read_acquisitions(str(folder / "acquisitions.json"))


RECORD = {
    "case": EXPRESSION, "spacing": [1, 1, 1], "level": 0, "seconds": 0, "side": EXPRESSION, "review": [EXPRESSION],
    "volumes": {EXPRESSION: {"voxels": 1, "mm3": 1, "mm3_fine": None}},
}  # fmt: skip
INFINITE = json.dumps({**RECORD, "level": float("inf")})


@pytest.mark.parametrize("text", ["[" * 100_000, INFINITE, '{"case": 1}', "1e999", "\x00", json.dumps(EXPRESSION)])
def test_records_that_are_damaged_on_purpose_do_not_end_a_run(folder, text):
    (folder / "x_seg.json").write_text(text)
    (folder / ".x_seg.claim").write_text(text)
    assert collect_volumes(folder) == []
    records = CaseRecords(str(folder), "scan", str(folder / "model.pt"), {"options": {}, "config": ""})
    assert records.pending([{"image": "x.nii.gz", "case": "x"}])
    records.acquire({"image": "x.nii.gz", "case": "x"})


def test_records_in_the_folder_of_the_predictions(folder):
    for case in (EXPRESSION, "=cmd()", "@SUM(1)"):
        (folder / f"{case}_seg.json").write_text(json.dumps({**RECORD, "case": case}))
    collect_volumes(folder)
    text = (folder / "volumes.csv").read_text()
    assert EXPRESSION in text and "\n'=cmd()," in text and "\n'@SUM(1)," in text


@pytest.fixture
def exported(folder):
    network = RAREUNet(spatial_dims=2, in_channels=1, out_channels=2, channels=(2, 2, 2), stage_convs=1, gate_convs=1)
    torch.save(network.state_dict(), folder / "model.pt")
    export_runtimes("torchscript", network, folder / "exports", folder / "model.pt")
    return network, folder / "exports" / "torchscript"


@pytest.mark.parametrize("form", ["pickle", "zip"])
def test_an_export_is_code_but_no_pickle(exported, folder, form):
    """Whoever can replace the program can correct its digest, too."""
    network, exports = exported
    program, stamp = exports / "network.ts", exports / "export.json"
    if form == "pickle":
        program.write_bytes(pickle.dumps(Pickled()))
    else:
        torch.save({"x": Pickled()}, program)
    with pytest.raises(ValueError, match=r"is not as it was written \(network\.ts\)"):
        load_runtime("torchscript", network, folder / "exports", folder / "model.pt")
    content = json.loads(stamp.read_text())
    content["files"]["network.ts"] = sha256(program)
    stamp.write_text(json.dumps(content))
    with pytest.raises(RuntimeError):
        load_runtime("torchscript", network, folder / "exports", folder / "model.pt")


@pytest.mark.parametrize("text", ["[]", "{}", '"x"', "{"])
def test_a_description_of_an_export_that_is_none(exported, folder, text):
    (exported[1] / "export.json").write_text(text)
    with pytest.raises(ValueError, match=r"export\.json must (describe an export|be a JSON file)"):
        load_runtime("torchscript", exported[0], folder / "exports", folder / "model.pt")


def test_while_an_export_is_loaded_torch_unpickles_tensors_only(exported, folder, monkeypatch):
    """Also in a library that asks for all of a pickle."""
    torch.save(Pickled(), folder / "payload.pt")
    monkeypatch.setattr(
        torch.jit, "load", lambda *args, **kwargs: torch.load(folder / "payload.pt", weights_only=False)
    )
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "0")
    with pytest.raises(pickle.UnpicklingError, match="weights_only"):
        load_runtime("torchscript", exported[0], folder / "exports", folder / "model.pt")
    torch.load(folder / "payload.pt", weights_only=False)  # the setting before is restored
    (folder / MARKER).rmdir()
