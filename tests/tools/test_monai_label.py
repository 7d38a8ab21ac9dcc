"""MONAI Label's real server with both bundles, asked by 3D Slicer's own client.

Needs an environment of its own (or MONAI_LABEL_ENV):
    python tools/release/monai_label.py environment --env .monai_label
"""

import json
import os
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from ..bundles.conftest import BUNDLE, BUNDLES, REPOSITORY, run
from .helpers import tool

ENV = Path(os.environ.get("MONAI_LABEL_ENV", REPOSITORY / ".monai_label")).absolute()
HIPPOCAMPUS, BRAIN = "hippocampus_mri_segmentation", "brain_tumor_mri_segmentation"
pytestmark = pytest.mark.skipif(
    not (ENV / "bin" / "monailabel").is_file(),
    reason=f"MONAI Label is not in {ENV}: python tools/release/monai_label.py environment --env {ENV}",
)
SAMPLES = BUNDLE / "sample"
HEAD = SAMPLES / "heads" / "icbm152_head_1x1x5mm.nii.gz"
OF_A_HEAD = {"left anterior": 1, "left posterior": 2, "right anterior": 3, "right posterior": 4}


def thick_lps(folder):
    """The sample with slices of 4 mm, its axes in the order and direction of DICOM."""
    scan = nib.load(SAMPLES / "images" / "icbm152_left_1x1x4mm.nii.gz")
    turn = nib.orientations.ornt_transform(nib.io_orientation(scan.affine), nib.orientations.axcodes2ornt("LPS"))
    nib.save(scan.as_reoriented(turn), folder / "thick.nii.gz")
    return folder / "thick.nii.gz"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


FINE_TUNING = {"max_epochs": 1, "val_split": 0.5, "device": "cpu", "multi_gpu": False, "model_filename": "model.pt"}
PHANTOM = BUNDLES[BRAIN] / "sample/Task01_BrainTumour/imagesTr/phantom.nii.gz"


def label_of(path):
    return str(path).replace("imagesTr", "labelsTr")


def at_1mm(path, folder):
    """The phantom with each of its voxels of 2 mm as eight: a training wants scans of 1 mm."""
    image = nib.load(path)
    data = np.asarray(image.dataobj).repeat(2, 0).repeat(2, 1).repeat(2, 2)
    affine = image.affine @ np.diag([0.5, 0.5, 0.5, 1])
    affine[:3, 3] -= image.affine[:3, :3] @ np.full(3, 0.25)
    (folder / path.parent.name).mkdir()
    nib.save(nib.Nifti1Image(data, affine), folder / path.parent.name / path.name)
    return folder / path.parent.name / path.name


def serve(folder, asked):
    """Starts the server in a folder and sends it requests; answers by name, the folder, and the server's log."""
    (folder / "studies").mkdir()
    (folder / "home").mkdir()
    words = tool("release/monai_label").make_app(ENV, folder / "app", list(BUNDLES.values()))
    url = f"http://127.0.0.1:{free_port()}"
    words += ["--studies", str(folder / "studies"), "--port", url.rsplit(":", 1)[1]]
    environment = {**os.environ, "HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)  # the app's bundles bring their package
    log = folder / "server.log"
    with open(log, "w") as file:
        server = subprocess.Popen(words, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT)
        try:
            wait_for(f"{url}/info/", server, log)
            (folder / "asked.json").write_text(json.dumps(list(asked.values()), default=str))
            client = [ENV / "bin" / "python", Path(__file__).with_name("monai_label_client.py"), ENV, url]
            files = [folder / "asked.json", folder / "answers.json"]
            subprocess.run([*client, *files], check=True, env=environment, timeout=1200)
        finally:
            server.terminate()
            server.wait(60)
    answers = dict(zip(asked, json.loads((folder / "answers.json").read_text())))
    return answers, folder, log.read_text()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """All that Slicer's extension asks for, with the hippocampus bundle, and what the tumour bundle makes of scans."""
    folder = tmp_path_factory.mktemp("label")
    scans = {
        "one": SAMPLES / "images" / "icbm152_left_1mm.nii.gz",
        "two": SAMPLES / "images" / "icbm152_left_2mm.nii.gz",
        "thick": thick_lps(folder),
    }
    damaged = folder / "damaged.nii.gz"
    damaged.write_text("no image")
    labelled = {
        f"hippocampus_{n}": SAMPLES / "Task04_Hippocampus" / "imagesTr" / f"hippocampus_{n}.nii.gz"
        for n in ("067", "068")
    }
    return serve(
        folder,
        {
            "info": ["info"],
            **{f"upload {name}": ["upload", path, name] for name, path in scans.items()},
            "next": ["next", "first"],
            **{f"infer {name}": ["infer", HIPPOCAMPUS, name, f"{name}_label.nii.gz"] for name in scans},
            "session": ["session", HIPPOCAMPUS, scans["thick"], "session_label.nii.gz"],
            "batch": ["batch", HIPPOCAMPUS, {"multi_gpu": False}],
            "download": ["download", "two", "original", "batch_label.nii.gz"],
            "upload head": ["upload", HEAD, "head"],  # after the batch, which takes all scans
            "infer head": ["infer", HIPPOCAMPUS, "head", "head_label.nii.gz"],
            "one channel": ["infer", BRAIN, "one", "none.nii.gz"],
            "upload phantom": ["upload", PHANTOM, "phantom"],
            "infer phantom": ["infer", BRAIN, "phantom", "phantom_label.nii.gz"],
            "upload damaged": ["upload", damaged, "damaged"],
            "damaged": ["infer", HIPPOCAMPUS, "damaged", "none.nii.gz"],
            **{f"upload {name}": ["upload", path, name] for name, path in labelled.items()},
            "train without labels": ["train", HIPPOCAMPUS, FINE_TUNING],
            "save 067": ["save", "hippocampus_067", label_of(labelled["hippocampus_067"]), "final", {}],
            "train on one": ["train", HIPPOCAMPUS, FINE_TUNING],
            "save 068": ["save", "hippocampus_068", label_of(labelled["hippocampus_068"]), "final", {}],
            "train": ["train", HIPPOCAMPUS, FINE_TUNING],
            "infer again": ["infer", HIPPOCAMPUS, "one", "again_label.nii.gz"],
            "datastore": ["datastore"],
        },
    )


@pytest.fixture(scope="module")
def served_tumours(tmp_path_factory):
    """A training of the tumour network, on two phantoms: it takes all labelled scans of a server."""
    folder = tmp_path_factory.mktemp("tumours")
    scan, label = (at_1mm(path, folder) for path in (PHANTOM, Path(label_of(PHANTOM))))
    names = ("phantom", "phantom_again")
    return serve(
        folder,
        {
            **{f"upload {name}": ["upload", scan, name] for name in names},
            "infer": ["infer", BRAIN, "phantom", "before.nii.gz"],
            **{f"save {name}": ["save", name, label, "final", {}] for name in names},
            "train": ["train", BRAIN, FINE_TUNING],
            "infer again": ["infer", BRAIN, "phantom", "after.nii.gz"],
        },
    )


def wait_for(url, server, log, seconds=300):
    for _ in range(seconds):
        try:
            return urllib.request.urlopen(url)
        except OSError:
            if server.poll() is not None or "startup failed" in log.read_text():
                break
            time.sleep(1)
    pytest.fail(f"MONAI Label did not start: {log.read_text()[-3000:]}")


def dice(a, b, label):
    a, b = (np.asarray(x.dataobj) == label for x in (a, b))
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_server_lists_both_bundles_with_their_labels(served):
    models = served[0]["info"]["models"]
    assert models[HIPPOCAMPUS]["labels"] == {"anterior": 1, "posterior": 2}
    assert models[BRAIN]["labels"] == {"edema": 1, "non_enhancing": 2, "enhancing": 3}
    assert {HIPPOCAMPUS, BRAIN} <= set(served[0]["info"]["trainers"])


def test_next_sample_is_one_of_the_uploads(served):
    assert served[0]["next"]["id"] in ("one", "two", "thick")


@pytest.mark.parametrize(
    "answer, scan", [("one", "one"), ("two", "two"), ("thick", "thick"), ("session", "thick"), ("batch", "two")]
)
def test_label_lies_on_the_scan_and_is_what_the_command_gives(served, tmp_path, answer, scan):
    _, folder, _ = served
    uploaded = folder / "studies" / f"{scan}.nii.gz"
    label = nib.load(folder / f"{answer}_label.nii.gz")
    assert label.shape == nib.load(uploaded).shape
    np.testing.assert_allclose(label.affine, nib.load(uploaded).affine, atol=1e-4)
    run("inference.json", input=str(uploaded), output_dir=str(tmp_path))
    own = nib.load(tmp_path / f"{scan}_seg.nii.gz")
    assert min(dice(label, own, k) for k in (1, 2)) >= 0.99


@pytest.mark.parametrize("scan", ["one", "two", "thick"])
def test_response_names_the_labels(served, scan):
    assert served[0][f"infer {scan}"]["label_names"] == {"anterior": 1, "posterior": 2}


def test_a_whole_head_gets_four_labels_with_their_names_as_the_command_gives_it(served, tmp_path):
    answers, folder, _ = served
    assert answers["infer head"]["label_names"] == OF_A_HEAD
    uploaded, label = folder / "studies" / "head.nii.gz", nib.load(folder / "head_label.nii.gz")
    assert label.shape == nib.load(uploaded).shape
    np.testing.assert_allclose(label.affine, nib.load(uploaded).affine, atol=1e-4)
    run("inference.json", input=str(uploaded), output_dir=str(tmp_path), report="false")
    record = json.loads((tmp_path / "head_seg.json").read_text())
    assert {name: int(label) for label, name in record["labels"].items()} == OF_A_HEAD
    own = nib.load(tmp_path / "head_seg.nii.gz")
    assert min(dice(label, own, k) for k in OF_A_HEAD.values()) >= 0.99


@pytest.mark.parametrize("scan, level", [("one", 0), ("two", 1), ("thick", 0)])
def test_log_names_the_level(served, scan, level):
    assert f"/{scan}.nii.gz: level {level} (scale " in served[2]


def test_four_modalities_in_one_file_are_segmented(served):
    answers, folder, _ = served
    assert answers["infer phantom"]["label_names"] == {"edema": 1, "non_enhancing": 2, "enhancing": 3}
    label, scan = nib.load(folder / "phantom_label.nii.gz"), nib.load(folder / "studies" / "phantom.nii.gz")
    assert label.shape == scan.shape[:3] and set(np.unique(label.dataobj)) <= {0, 1, 2, 3}
    assert np.asarray(label.dataobj).any()


def test_one_channel_gets_a_response_with_the_names_of_the_four(served):
    error = served[0]["one channel"]["error"]
    assert "Status: 422" in error and "expected the channels FLAIR, T1w, T1Gd, T2w" in error


def test_a_damaged_file_gets_a_response_with_the_reason(served):
    error = served[0]["damaged"]["error"]
    assert "Status: 422" in error and "damaged.nii.gz" in error


def test_a_training_before_a_label_is_saved_ends_with_an_error_that_says_so(served):
    task = served[0]["train without labels"]
    assert task["status"] == "ERROR"
    assert task["details"][-1].startswith("error: no scan has a label that was saved as final"), task["details"]


def check_trained_on(answers, app, bundle):
    """One epoch of a scan or two: trained on from the shipped weights, not from anew."""
    assert answers["train"]["status"] == "DONE", answers["train"]["details"][-10:]
    models = app / "model" / bundle / "models"
    new, shipped = (torch.load(models / name, weights_only=True) for name in ("model.pt", "model_shipped.pt"))
    assert new.keys() == shipped.keys() and any(not torch.equal(new[k], shipped[k].to(new[k].dtype)) for k in new)
    assert max(float((new[k].float() - shipped[k].float()).abs().max()) for k in new) < 0.01


def test_training_from_corrected_labels_changes_the_weights_that_are_used(served):
    answers, folder, _ = served
    assert answers["train on one"]["status"] == "DONE", answers["train on one"]["details"][-10:]
    check_trained_on(answers, folder / "app", HIPPOCAMPUS)
    before, after = (nib.load(folder / f"{name}_label.nii.gz") for name in ("one", "again"))
    assert min(dice(before, after, k) for k in (1, 2)) >= 0.9
    objects = answers["datastore"]["objects"]
    assert "final" in objects["hippocampus_067"]["labels"] and "original" in objects["two"]["labels"]


def test_the_tumour_network_is_trained_on_as_well(served_tumours):
    answers, folder, _ = served_tumours
    check_trained_on(answers, folder / "app", BRAIN)
    before, after = (nib.load(folder / f"{name}.nii.gz") for name in ("before", "after"))
    assert min(dice(before, after, k) for k in (1, 2, 3)) >= 0.9
