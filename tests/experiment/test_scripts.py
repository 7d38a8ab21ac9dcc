"""The scripts that make the documentation's tables and nnU-Net's data."""

import ast
import csv
import importlib
import json
import shlex
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor

from rare_unet_networks.runtimes.export import export_runtimes

from ..bundles.conftest import BUNDLES
from ..bundles.conftest import REPOSITORY as ROOT
from .conftest import OVERLAYS, SCRIPTS, script


@pytest.fixture(autouse=True)
def scripts_on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))  # as when one of them is run


@pytest.fixture
def experiment():
    return script("make_experiment")


def test_documents_hold_the_tables_that_the_results_give(experiment):
    for path in experiment.DOCUMENTS:
        text = path.read_text()
        assert "<!-- table: " in text
        assert experiment.with_tables(text) == text, f"{path}: run python docs/experiment/scripts/make_experiment.py"
    for task in (t for t in experiment.TASKS.values() if t.shipped):
        text = (task.bundle / "configs/metadata.json").read_text()
        assert experiment.with_metrics(text, task) == text


LISTS = sorted((ROOT / "docs/experiment").rglob("models.json"))
LIST_IDS = [str(path.parent.relative_to(ROOT / "docs/experiment")) for path in LISTS]


@pytest.mark.parametrize("path", LISTS, ids=LIST_IDS)
def test_every_result_is_listed(path):
    found = {p.parent.name for p in path.parent.glob("*/per_case.csv")}
    assert found <= set(json.loads(path.read_text()))


ENTRY = {"title", "given", "train", "evaluate", "benchmark", "weights_of", "apart"}


@pytest.mark.parametrize("path", LISTS, ids=LIST_IDS)
def test_entries_have_known_keys_and_weights_of_rows_that_exist(path):
    entries = json.loads(path.read_text())
    for name, entry in entries.items():
        assert set(entry) <= ENTRY and entry["title"] and entry["evaluate"], name
        assert entry.get("weights_of") in (None, *entries), name


def test_what_is_set_apart_is_neither_bold_nor_in_a_difference():
    tables = script("experiment_tables")
    task = tables.HIPPOCAMPUS
    apart = [entry["title"] for entry in tables.models(task).values() if entry.get("apart")]
    assert apart
    for title in apart:
        lines = tables.by_scale(task, "dice", "full").splitlines()
        assert all("**" not in line for line in lines if line.startswith(f"| {title} |"))
        assert title not in tables.differences(task, "full")


COMMANDS = [
    (f"{where}/{name}", line)
    for where, path in zip(LIST_IDS, LISTS)
    for name, entry in json.loads(path.read_text()).items()
    for kind in ("train", "evaluate")
    for line in entry.get(kind, "").split(" && ")
    if "monai.bundle run" in line
]


@pytest.mark.parametrize("name, line", COMMANDS, ids=[f"{n} {c.split()[4]}" for n, c in COMMANDS])
def test_every_listed_command_names_files_and_entries_that_exist(name, line):
    bundle = next(b for n, b in BUNDLES.items() if n.startswith(name.split("_")[0].split("/")[0]))
    words = shlex.split(
        line.replace("$C", str(bundle / "configs")).replace("docs/", f"{ROOT}/docs/").replace("$E", str(OVERLAYS))
    )
    options = dict(zip(words[5::2], words[6::2]))
    files = options.pop("--config_file")
    parser = ConfigParser()
    parser.read_config(ast.literal_eval(files) if files.startswith("[") else files)
    for key in options:
        assert key.startswith("--") and key[2:] in parser, f"{name}: {key}"


def test_cells_say_how_many_volumes_have_the_measure():
    entry = {"mean": 0.8771, "sd": 0.0312, "n": 41, "left_out": 1}
    tables = script("experiment_tables")
    assert tables.cell(entry) == "0.877 ± 0.031 (n 41)"
    assert tables.cell({**entry, "left_out": 0, "sd": float("nan")}) == "0.877"
    assert tables.cell(None) == tables.cell({**entry, "mean": float("nan")}) == "–"


def test_volumes_of_one_subject_are_grouped():
    subject = script("experiment_tasks").HIPPOCAMPUS.subject
    assert subject("hippocampus_067") == subject("hippocampus_068") == 34
    assert subject("hippocampus_069") == 35


def test_of_acquisitions_the_spacing_is_the_column():
    lines = [
        ["case", "spacing", "profile", "level", "grid", "class", "dice"],
        ["a", "2x2x6", "gaussian", "1", "full", "edema", "0.5"],
    ]
    found = script("experiment_results").by_spacing(lines)
    assert found == [["case", "scale", "grid", "class", "dice"], ["a", "2x2x6", "full", "edema", "0.5"]]
    tasks = script("experiment_tasks")
    assert found[1][1] in tasks.BRAIN_TUMOR_22_ACQUISITIONS.scales


def test_nnunet_gets_the_split_and_its_predictions_are_restored_to_the_right_grids(tiny, tmp_path):
    nnunet = script("nnunet")
    task = replace(nnunet.TASKS["hippocampus"], splits=tiny / "splits.json")
    nnunet.convert(task, tiny, tmp_path / "raw")
    names = json.loads((tmp_path / "raw" / "dataset.json").read_text())
    assert names["channel_names"] == {"0": "MRI"} and list(names["labels"]) == ["background", "anterior", "posterior"]
    assert json.loads((tmp_path / "raw" / "splits_final.json").read_text()) == [
        {"train": ["a", "b"], "val": ["c", "d"]}
    ]
    assert len(list((tmp_path / "raw" / "imagesTr").iterdir())) == 4
    nnunet.inputs(task, tiny, tmp_path / "inputs", "validation")
    for path in (tmp_path / "inputs").rglob("*_0000.nii.gz"):  # a baseline that predicts 1 in the brighter voxels
        scan = nib.load(path)
        prediction = (np.asarray(scan.dataobj) > 60).astype(np.uint8)
        target = tmp_path / "outputs" / path.relative_to(tmp_path / "inputs").with_name(path.name.replace("_0000", ""))
        target.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(prediction, scan.affine), target)
    nnunet.collect(task, tiny, tmp_path / "outputs", tmp_path / "predictions", "validation")
    for scale in ("0.5", "0.25"):
        pad, spacing, up = (
            nib.load(tmp_path / "predictions" / m / scale / "c.nii.gz") for m in ("pad", "spacing", "up")
        )
        np.testing.assert_array_equal(np.asarray(pad.dataobj), np.asarray(spacing.dataobj))
        np.testing.assert_allclose(pad.affine, spacing.affine)
        assert up.shape == tuple(round(n / float(scale)) for n in pad.shape) and up.header.get_zooms() == (1, 1, 1)
        assert 0 < np.asarray(pad.dataobj).sum() < np.prod(pad.shape)


def test_nnunet_gets_a_file_for_each_modality(tmp_path):
    nnunet = script("nnunet")
    for folder, size in (("imagesTr", (8, 9, 7, 4)), ("labelsTr", (8, 9, 7))):
        (tmp_path / folder).mkdir()
        data = np.arange(np.prod(size), dtype=np.float32).reshape(size) % 4
        nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / folder / "a.nii.gz")
    (tmp_path / "splits.json").write_text(json.dumps({"train": ["a"], "validation": ["a"]}))
    task = replace(nnunet.TASKS["brain_tumor"], splits=tmp_path / "splits.json")
    nnunet.convert(task, tmp_path, tmp_path / "raw")
    names = json.loads((tmp_path / "raw" / "dataset.json").read_text())["channel_names"]
    assert names == {"0": "FLAIR", "1": "T1w", "2": "T1Gd", "3": "T2w"}
    third = np.asarray(nib.load(tmp_path / "raw" / "imagesTr" / "a_0002.nii.gz").dataobj)
    assert third.shape == (8, 9, 7) and (third == 2).all()


@pytest.mark.parametrize("name, words, message", [
    ("nnunet", "convert /nowhere target", "dataset_dir must be a folder with imagesTr/ and labelsTr/, /nowhere is"),
    ("nnunet", "inputs {tiny} target --splits_file /nowhere.json", "No such file or directory: '/nowhere.json'"),
    ("nnunet", "collect {tiny} /nowhere target --splits_file {tiny}/splits.json", "'/nowhere/up/1/c.nii.gz'"),
    ("compare_runtimes", "--task hippocampus --dataset_dir /nowhere", "--dataset_dir must be a folder, /nowhere"),
    ("compare_runtimes", "--task hippocampus --export_dir /nowhere", "/nowhere/torchscript does not: in the bundle's"),
])  # fmt: skip
def test_a_wrong_path_is_reported_in_one_line(tiny, tmp_path, monkeypatch, capsys, name, words, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [f"{name}.py", *words.format(tiny=tiny).split()])
    with pytest.raises(SystemExit):
        script(name).main()
    error = capsys.readouterr().err.splitlines()[-1]
    assert "error: " in error and message in error


def test_figures_are_drawn_from_slices(tmp_path):
    pytest.importorskip("matplotlib")
    figures = script("experiment_figures")
    task = script("experiment_tasks").HIPPOCAMPUS
    label = np.asarray(nib.load(task.file("labelsTr")).dataobj)
    figures.draw_cases(task, {"a model": {"1": label[15], "0.5": label[15]}}, 15, tmp_path / "4.png")
    key = ("dice", "full", "mean")
    summary = {(*key, s): {"mean": 0.8} for s in ("1", "0.5", "0.25", "0.125")}
    times = {("m", s, "full", "1", "network"): {"seconds": "0.1", "parameters": "5"} for s in ("1", "0.5")}
    figures.draw_time(task, {"m": ("a model", {"model": "m", "output": "full"}, summary)}, times, tmp_path / "6.png")
    assert all((tmp_path / name).stat().st_size > 10_000 for name in ("4.png", "6.png"))


def test_lines_measured_anew_take_the_place_of_the_old_ones(tmp_path):
    module, path = importlib.import_module("benchmark"), tmp_path / "deep" / "benchmark.csv"

    def row(model, threads, seconds):
        return (model, 1, "full", threads, "network", seconds, "", "", "")

    module.take_in(path, [row("a", 1, 1.0), row("a", 1, 2.0)])
    module.take_in(path, [row("b", 1, 3.0)])
    module.take_in(path, [row("a", 2, 4.0)])
    module.take_in(path, [row("a", 1, 5.0)])
    rows = [line.split(",") for line in path.read_text().splitlines()[1:]]
    assert [(r[0], r[3], r[5]) for r in rows] == [("a", "1", "5.0"), ("b", "1", "3.0"), ("a", "2", "4.0")]


def test_a_simulated_head_is_warned_of_and_its_brain_is_not():
    """A ball of 40 mm radius, 0.27 l, in 13 mm of skull and scalp: more than 0.5 l; the limit lies between."""
    warnings = script("skull_warnings")
    axis = torch.arange(88.0) - 43.5
    ball = sum(x**2 for x in torch.meshgrid(axis, axis, axis, indexing="ij")) < 40**2
    brain = MetaTensor((100.0 * ball).expand(4, -1, -1, -1).clone(), affine=torch.eye(4))
    brain[:, 44, 44, 44] = 120  # some contrast
    assert warnings.volumes([brain], 0.4) == []
    litres = warnings.volumes([warnings.in_a_head(brain)], 0.4)
    assert len(litres) == 4 and min(litres) > 0.5


def test_a_runtime_is_compared_call_by_call():
    compare = script("compare_runtimes")

    def recorded(size, native, full):
        recorder = compare.Recorder(lambda x, output="scan": native if output == "scan" else (native, full))
        recorder(torch.ones(size))
        recorder(torch.ones(size), output="both")
        return recorder

    ours = recorded(2, torch.zeros(2), torch.zeros(4))
    assert ours.difference(recorded(2, torch.zeros(2), torch.zeros(4))) == 0
    assert ours.difference(recorded(2, torch.full((2,), 0.25), torch.tensor([0, 0, -0.5, 0]))) == 0.5
    assert ours.difference(recorded(3, torch.zeros(3), torch.zeros(6))) == float("inf")  # recorded for another request


def test_comparing_runtimes_keeps_the_lines_of_others(tmp_path):
    compare = script("compare_runtimes")
    rows = [[name, "1.0", scale, 2, value, "1.00000", "", "", ""] for name, scale, value in (
        ("onnx", "0.5", "1e-06"), ("onnx", "1", "2e-06"), ("torchscript", "1", "3e-06")
    )]  # fmt: skip
    compare.take_in(tmp_path / "runtimes.csv", rows)
    compare.take_in(tmp_path / "runtimes.csv", [[*rows[1][:4], "4e-06", *rows[1][5:]]])
    with open(tmp_path / "runtimes.csv", newline="") as file:
        found = [(r["runtime"], r["scale"], r["difference"]) for r in csv.DictReader(file)]
    assert found == [("torchscript", "1", "3e-06"), ("onnx", "1", "4e-06"), ("onnx", "0.5", "1e-06")]


def test_runtimes_are_compared_on_the_sample_scans(tmp_path):
    compare = script("compare_runtimes")
    task = compare.TASKS["hippocampus"]
    parser = ConfigParser(json.loads((task.bundle / "configs/inference.json").read_text()))
    export_runtimes("torchscript", parser.get_parsed_content("network_def"), tmp_path, task.bundle / "models/model.pt")
    folders = dict(dataset_dir=str(task.dataset), export_dir=str(tmp_path))
    with torch.no_grad():
        ((runtime, _, scale, scans, difference, dice, _, *seconds),) = compare.compare(
            task, ["torchscript"], 1, [3], 1, **folders
        )
    assert (runtime, scale, scans) == ("torchscript", "0.125", 1)
    assert float(difference) < 1e-4 and float(dice) >= 0.999 and all(float(s) > 0 for s in seconds)
