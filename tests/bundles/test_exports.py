"""Exports of the bundles' networks (configs/export.json), and inferring and evaluating with them, run for real."""

import json
import os

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from rare_unet_networks.metrics.multi_scale import dice_per_class
from rare_unet_networks.runtimes.load import describe
from rare_unet_networks.utils import sha256

from ..runtimes.test_runtimes import runtime_or_skip
from .conftest import BUNDLES, CONFIGS, EVALUATE, REPOSITORY, SAMPLE, command, config, read, run
from .documents import programs

HIPPOCAMPUS, BRAIN = BUNDLES["hippocampus_mri_segmentation"], BUNDLES["brain_tumor_mri_segmentation"]
FILES = f"['{CONFIGS}/inference.json','{CONFIGS}/export.json']"
CASES = [
    *(pytest.param(HIPPOCAMPUS, *p.values, marks=p.marks, id=f"hippocampus-{p.values[0]}")
      for p in map(runtime_or_skip, ("torchscript", "onnx", "openvino"))),
    pytest.param(BRAIN, "torchscript", id="brain_tumor-torchscript", marks=pytest.mark.slow),
]  # fmt: skip


@pytest.fixture(scope="module")
def eager(tmp_path_factory):
    """The folder with what eager makes of a bundle's sample scans."""
    made = {}

    def predictions(bundle):
        if bundle not in made:
            made[bundle] = tmp_path_factory.mktemp("eager")
            run("inference.json", output_dir=str(made[bundle]), bundle=bundle)
        return made[bundle]

    return predictions


def label_maps(folder):
    return {p.name: torch.tensor(np.asarray(nib.load(p).dataobj))[None] for p in folder.glob("*_seg.nii.gz")}


@pytest.mark.parametrize("bundle, runtime", CASES)
def test_inferring_by_a_runtime_gives_the_sample_scans_the_predictions_of_eager(eager, tmp_path, bundle, runtime):
    exports = dict(runtime=runtime, export_dir=str(tmp_path / "exports"), bundle=bundle)
    run("inference.json", "export.json", **exports)
    workflow = run("inference.json", output_dir=str(tmp_path / "out"), **exports)
    network, network_def = (workflow.parser.get_parsed_content(key) for key in ("network", "network_def"))
    assert network is not network_def and workflow.parser.get_parsed_content("evaluator").network is network
    expected, found = label_maps(eager(bundle)), label_maps(tmp_path / "out")
    assert expected.keys() == found.keys() and expected
    num_classes = len(config("inference.json", bundle)["class_names"]) + 1
    for name, labels in expected.items():
        assert min(dice_per_class(found[name], labels, num_classes)) >= 0.999, name
    rows = [{(r["case"], r["class"]): r for r in read(p / "volumes.csv")} for p in (eager(bundle), tmp_path / "out")]
    assert rows[0].keys() == rows[1].keys()
    for key, row in rows[0].items():
        assert row["level"] == rows[1][key]["level"]
        assert float(rows[1][key]["mm3_fine"]) == pytest.approx(float(row["mm3_fine"]), rel=2e-3)


def test_evaluating_by_a_runtime_gives_the_scores_of_eager(tmp_path):
    data = dict(dataset_dir=str(SAMPLE / "Task04_Hippocampus"), val_levels=[1, 3])
    exports = dict(runtime="torchscript", export_dir=str(tmp_path / "exports"))
    run("inference.json", "export.json", **exports)
    scores = []
    for name, options in (("eager", {}), ("torchscript", exports)):
        run(*EVALUATE, output_dir=str(tmp_path / name), **data, **options)
        scores.append([float(r["dice"]) for r in read(tmp_path / name / "metrics" / "per_case.csv")])
    assert len(scores[0]) == 2 * 2 * 2 * 2  # cases, scales, grids, classes
    assert scores[1] == pytest.approx(scores[0], abs=1e-3)


def test_the_commands_export_and_infer_and_refuse_an_export_of_other_weights(tmp_path):
    exports = dict(runtime="torchscript", export_dir=tmp_path / "exports")
    result = command("exporting", FILES, **exports)
    assert result.returncode == 0, result.stdout
    assert {p.name for p in (tmp_path / "exports/torchscript").iterdir()} == {"network.ts", "export.json"}
    options = dict(input=SAMPLE / "images" / "icbm152_left_4mm.nii.gz", output_dir=tmp_path / "out", **exports)
    result = command("inferring", CONFIGS / "inference.json", **options)
    assert result.returncode == 0 and "runtime torchscript: " in result.stdout, result.stdout
    assert (tmp_path / "out" / "icbm152_left_4mm_seg.nii.gz").exists()
    other = REPOSITORY / "docs/experiment/weights/model_paper_split.pt"
    options.update(checkpoint=other, output_dir=tmp_path / "refused")
    result = command("inferring", CONFIGS / "inference.json", **options)
    assert result.returncode != 0 and not (tmp_path / "refused").exists()
    assert result.stdout.splitlines()[-1] == (
        f"error: the export in {tmp_path}/exports/torchscript is not of the weights in {other}: "
        "in the bundle's folder, `run exporting --config_file \"['configs/inference.json','configs/export.json']\" "
        f"--runtime torchscript --checkpoint {other} --export_dir {tmp_path}/exports` writes it."
    )


@pytest.mark.parametrize("run_id, files", [("exporting", FILES), ("inferring", CONFIGS / "inference.json")])
def test_a_missing_package_ends_with_one_line_that_names_the_extra(tmp_path, run_id, files):
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    hide = "import sys\nfor name in ('onnx', 'onnxruntime'):\n    sys.modules[name] = None\n"
    (hidden / "sitecustomize.py").write_text(hide)
    if run_id == "inferring":  # an export that somebody else made
        (tmp_path / "onnx").mkdir()
        network = ConfigParser(config("inference.json")).get_parsed_content("network_def")
        stamp = {"files": {}, "outputs": [["scan"]] * 4}
        stamp |= {"checkpoint": sha256(HIPPOCAMPUS / "models/model.pt"), "network": describe(network)}
        (tmp_path / "onnx/export.json").write_text(json.dumps(stamp))
    variables = {"PYTHONPATH": os.pathsep.join([str(hidden), os.environ.get("PYTHONPATH", "")])}
    result = command(
        run_id, files, variables=variables, runtime="onnx", export_dir=tmp_path, output_dir=tmp_path / "out"
    )
    assert result.returncode != 0 and "Traceback" not in result.stdout
    last = result.stdout.splitlines()[-1]
    assert last.startswith("error: runtime 'onnx' needs the package onnx") and "pip install '.[onnx]'" in last


@pytest.mark.parametrize("runtime", [runtime_or_skip("onnx")])
def test_the_program_of_the_documentation_gives_the_shapes_it_says(tmp_path, monkeypatch, runtime):
    (code,) = programs(REPOSITORY / "docs/exports.md")
    folder = tmp_path / "bundles" / HIPPOCAMPUS.name / "output/exports"
    workflow = run("inference.json", "export.json", runtime=runtime, export_dir=str(folder))
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    assert workflow.parser.get_parsed_content("levels").divisor(1) == 8 and "divisible by 8" in code
    for name in ("scan", "fine"):
        assert str(names[name].shape) in code and names[name].shape[:2] == (1, 3)
