"""``segment`` in Python gives what the command writes, and checks its arguments as the command does."""

import json
import logging
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow, create_workflow
from monai.data import MetaTensor
from monai.transforms import LoadImage

from rare_unet_networks import segment
from rare_unet_networks.transforms import LoadModalitiesd

REPOSITORY = Path(__file__).parents[2]
BUNDLES = REPOSITORY / "bundles"
BUNDLE = BUNDLES / "hippocampus_mri_segmentation"
CONFIG = BUNDLE / "configs" / "inference.json"
SCANS = BUNDLE / "sample" / "images"
SCAN = SCANS / "icbm152_right_4mm.nii.gz"
PHANTOM = BUNDLES / "brain_tumor_mri_segmentation" / "sample" / "images" / "phantom_files"
SUFFIXES = {"FLAIR": "flair", "T1w": "t1", "T1Gd": "t1ce", "T2w": "t2"}


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """Temporary files of the function go here; none is left."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert not list(folder.iterdir())


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """What the inference of the config writes, by grid."""
    folder = tmp_path_factory.mktemp("written")
    for grid in ("scan", "fine"):
        options = dict(input=str(SCAN), output_dir=str(folder), grid=grid, bundle_root=str(BUNDLE))
        workflow = ConfigWorkflow(str(CONFIG), workflow_type="infer", logging_file=False, **options)
        workflow.initialize()
        workflow.run()
    return folder


KINDS = {
    "path": lambda: SCAN,
    "text": lambda: str(SCAN),
    "image": lambda: nib.load(SCAN),
    "tensor": lambda: LoadImage(ensure_channel_first=True)(SCAN),
}


@pytest.mark.parametrize("kind, grid", [*((kind, "scan") for kind in KINDS), ("image", "fine")])
def test_every_kind_of_scan_gives_what_the_command_writes(written, kind, grid):
    name = "icbm152_right_4mm" + ("_seg" if grid == "scan" else "_fine_seg")
    expected = nib.load(written / f"{name}.nii.gz")
    record = json.loads((written / f"{name}.json").read_text())
    result = segment(KINDS[kind](), "hippocampus", bundle=str(BUNDLES), grid=grid)
    np.testing.assert_array_equal(result.label_map.dataobj, expected.dataobj)
    np.testing.assert_allclose(result.label_map.affine, expected.affine, atol=1e-5)
    for key in ("grid", "level", "side", "doubt", "review", "volumes", "weights", "spacing"):
        assert result.record[key] == record[key], key
    column = "mm3" if grid == "scan" else "mm3_fine"
    assert result.volumes == {name: volume[column] for name, volume in record["volumes"].items()}
    assert result.volumes["anterior"] > 1000 and result.review == [
        "the prediction touches the border of the scan: the structure may be cut"
    ]
    in_memory = kind in ("image", "tensor")
    assert bool(result.record["scans"]) == (not in_memory)
    assert result.record["case"] == ("scan" if in_memory else "icbm152_right_4mm")


@pytest.mark.slow
def test_modalities_are_a_folder_a_mapping_or_one_tensor():
    files = {m: PHANTOM / f"phantom_files_{suffix}.nii.gz" for m, suffix in SUFFIXES.items()}
    images = {m: nib.load(path) for m, path in files.items()}
    paths = {m: str(path) for m, path in files.items()}
    whole = LoadModalitiesd("image", list(SUFFIXES))({"image": paths, "case": "p"})["image"]
    results = [segment(scan, "brain-tumour", bundle=str(BUNDLES)) for scan in (PHANTOM, files, images, whole)]
    assert min(results[0].volumes.values()) > 10_000
    for result in results[1:]:
        assert result.volumes == results[0].volumes
        np.testing.assert_array_equal(result.label_map.dataobj, results[0].label_map.dataobj)


FLAT = nib.Nifti1Image(np.zeros((9, 9, 9), np.float32), np.eye(4))


@pytest.mark.parametrize(
    "scan, options, message",
    [
        (SCAN, {"gird": "fine"}, r"^gird is neither an option .* nor an entry of the config\. Did you mean grid\?$"),
        (SCAN, {"side": "up"}, r"^side must be one of \('auto', 'left', 'right'\), got 'up'\.$"),
        (SCAN, {"grid": "coarse"}, r"^grid must be one of \('scan', 'fine'\), got 'coarse'\.$"),
        (SCAN, {"checkpoint": "absent.pt"}, r"^checkpoint must exist, absent.pt does not\.$"),
        (SCAN, {"output_dir": "out", "part": "1/2"}, r"^output_dir, part: segment\(\) sets this option itself\.$"),
        (SCAN, {"task": "lung"}, r"^no bundle of the task 'lung' in .*: these have brain-tumour, hippocampus\.$"),
        ("absent.nii", {}, r"^input must be a scan or a folder of scans, absent.nii does not exist\.$"),
        (SCANS, {}, r"^scan must be one case, .*images has 8: icbm152_left_1mm, .*\.$"),
        (FLAT, {}, r"^scan: the scan has no contrast"),
        (np.zeros((9, 9, 9)), {}, "^scan must be a path, .*, got ndarray: a plain array has no voxel size"),
        (MetaTensor(torch.rand(9, 9, 9)), {}, r"^scan must have the shape \(C, \*spatial_size\) .* got \(9, 9, 9\)"),
        ({"FLAIR": FLAT}, {"task": "brain-tumour"}, "no file of T1w, T1Gd, T2w"),
    ],
)
def test_a_wrong_argument_is_an_error_in_one_line(scan, options, message):
    with pytest.raises(ValueError, match=message) as error:
        segment(scan, bundle=str(BUNDLES), **options)
    assert "\n" not in str(error.value)


def test_the_log_of_the_program_is_left_as_it_is(caplog):
    before = logging.getLogger().handlers[:]
    segment(SCAN, bundle=str(BUNDLES))
    assert logging.getLogger().handlers == before and not [m for m in caplog.messages if "Logging file" in m]


PROGRAM = """
from monai.bundle import create_workflow
workflow = create_workflow(config_file={config!r}, workflow_type="infer", logging_file=False, {arguments})
workflow.run()
workflow.finalize()
"""


@pytest.mark.parametrize(
    "arguments, last_line",
    [
        (
            "outptu_dir='x'",
            "error: outptu_dir is neither an option of the bundle runner nor an entry of the config. "
            "Did you mean output_dir?",
        ),
        ("input='absent'", "error: input must exist, absent does not."),
        ("overwrite='perhaps'", "error: overwrite must be true or false, got 'perhaps'."),
    ],
)
def test_create_workflow_with_a_wrong_argument_ends_with_one_line(tmp_path, arguments, last_line):
    program = PROGRAM.format(config=str(CONFIG), arguments=arguments)
    result = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 1 and result.stderr.splitlines()[-1] == last_line
    assert "Traceback" not in result.stderr


def test_workflows_know_the_bundle_of_their_config(tmp_path, monkeypatch):
    """Two at once, from another folder, without ``bundle_root``."""
    monkeypatch.chdir(tmp_path)
    brain = BUNDLES / "brain_tumor_mri_segmentation"
    workflows = []
    for root in (BUNDLE, brain):
        options = dict(workflow_type="infer", logging_file=False, output_dir=str(tmp_path / root.name))
        workflows.append(create_workflow(config_file=str(root / "configs" / "inference.json"), **options))
    for workflow, root in zip(workflows, (BUNDLE, brain)):
        workflow.parser["data"] = []  # nothing has to be segmented
        workflow.initialize()
        workflow.run()
        assert workflow.parser.get_parsed_content("bundle_root") == str(root)
        assert workflow.parser.get_parsed_content("checkpoint") == str(root / "models" / "model.pt")
