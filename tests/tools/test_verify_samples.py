"""tools/verify_bundle: which files and samples are a bundle's own, Dice against stored figures; runs no network."""

import json
import math

import nibabel as nib
import numpy as np
import pytest

from tools.verify_bundle import __main__ as main
from tools.verify_bundle import files, predictions, samples
from tools.verify_bundle.common import Bundle, Failed


@pytest.fixture
def bundle(tmp_path):
    """A function that makes a bundle of metadata alone, with stored figures of Dice or none."""
    root, work = tmp_path / "bundle", tmp_path / "work"
    (root / "configs").mkdir(parents=True)
    work.mkdir()

    def make(verification=None, **more):
        metadata = {} if verification is None else {"verification": verification}
        (root / "configs" / "metadata.json").write_text(json.dumps(metadata))
        return Bundle(root, work, **more)

    return make


def labels(voxels):
    """A map of 64 voxels, the first ones of class 1."""
    return nib.Nifti1Image((np.arange(64) < voxels).astype(np.uint8).reshape(4, 4, 4), np.eye(4))


def add_case(folder, case, voxels=1):
    """A labelled scan."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        nib.save(labels(voxels), folder / name / f"{case}.nii.gz")


def large_file(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.truncate(25_000_001)


@pytest.mark.parametrize("given, expected", [(None, ["a"]), ("data", ["b"]), (".mine", ["c"])])
def test_samples_are_the_bundles_own_or_those_given_without_hidden_ones(bundle, given, expected):
    made = bundle()
    add_case(made.root / "sample", "a")
    add_case(made.root / ".mine", "c")
    for folder in ("data/Task", "data/.hidden", "eval", "output/Task"):
        add_case(made.root / folder, "hidden" if "." in folder else "b")
    for folder in ("sample", "data/Task", ".mine"):
        for name in ("imagesTr", "labelsTr"):  # as macOS puts beside a file on another file system
            (made.root / folder / name / "._a.nii.gz").write_bytes(b"no NIfTI")
    made.sample = given and made.root / given
    assert list(samples.samples(made)) == expected


def test_large_files_are_sought_among_the_bundles_own(bundle):
    made = bundle()
    for name in (".git/lfs/objects/ab/c1", "models/.cache/large.pt", "data/large.nii.gz", "output/models/large.pt"):
        large_file(made.root / name)
    assert files.check_large_files(made) == "no file over 25 MB"
    large_file(made.root / "models" / "data" / "large.pt")
    with pytest.raises(Failed, match=r"^models/data/large\.pt has more than 25 MB and is not"):
        files.check_large_files(made)


def test_hidden_files_are_no_configs(bundle):
    made = bundle()
    (made.configs / "._train.json").write_bytes(b"\x00\x05\x16\x07")
    assert made.files == {}


@pytest.mark.parametrize("prediction, label, expected", [
    (0, 0, {"all": 1.0}),
    (3, 0, {"all": 0.0}),
    (0, 3, {"1": 0.0, "all": 0.0}),
    (3, 1, {"1": 0.5, "all": 0.5}),  # 2 · 1 / (3 + 1)
])  # fmt: skip
def test_dice_is_one_where_nothing_is_labelled_and_nothing_found(prediction, label, expected):
    pair = (np.asarray(labels(voxels).dataobj) for voxels in (prediction, label))
    assert samples.dice_of(*pair) == expected


def test_a_healthy_scan_in_which_something_is_found_fails(bundle, monkeypatch):
    made = bundle(predictions={"healthy": labels(0)})
    add_case(made.root, "healthy", 0)
    monkeypatch.setattr(predictions, "thick_dice", lambda bundle: ("healthy", {"axis0": 1.0}))
    predictions.store(made)
    stored = json.loads((made.configs / "metadata.json").read_text())["verification"]
    assert stored["dice"] == {"healthy": {"all": 1.0}}
    assert predictions.check_accuracy(bundle(stored, predictions={"healthy": labels(0)})).startswith(
        "Dice of healthy all: 1.0"
    )
    with pytest.raises(Failed, match=r"^healthy, all classes: Dice 0\.0, stored is 1\.0 "):
        predictions.check_accuracy(bundle(stored, predictions={"healthy": labels(3)}))


def test_a_figure_that_is_no_number_is_not_stored(bundle, monkeypatch):
    made = bundle(predictions={"a": labels(1)})
    add_case(made.root, "a")
    monkeypatch.setattr(predictions, "thick_dice", lambda bundle: ("a", {"axis0": math.nan}))
    with pytest.raises(ValueError, match="not JSON compliant"):
        predictions.store(made)
    assert (made.configs / "metadata.json").read_text() == "{}"


@pytest.mark.parametrize("check, message", [
    ("check_accuracy", r"a, class 1: Dice 1\.0, stored is nan ± 0\.005"),
    ("check_thick_slices", "a, 3 voxels along axis0 as one: Dice 0.9, expected nan at least"),
])  # fmt: skip
def test_a_stored_figure_that_is_no_number_fails(bundle, monkeypatch, check, message):
    stored = {"dice": {"a": {"1": math.nan, "all": 1.0}}, "thick_slices": {"a": {"axis0": math.nan}}}
    made = bundle(stored, predictions={"a": labels(1)})
    add_case(made.root, "a")
    monkeypatch.setattr(predictions, "thick_dice", lambda bundle: ("a", {"axis0": 0.9}))
    with pytest.raises(Failed, match=message):
        getattr(predictions, check)(made)


OF_A = {"a": {"1": 1.0, "all": 1.0}}


@pytest.mark.parametrize("given, dice, expected", [
    (False, OF_A, ("FAILED", "no figure is stored of b; --store writes them")),
    (False, {**OF_A, "b": {"all": 1.0}}, ("FAILED", "no figure is stored of b, class 1; --store writes them")),
    (True, {"c": {"all": 1.0}}, ("not checked", "no figure is stored of a, b")),
    (True, OF_A, ("ok", "Dice of a 1: 1.000, all: 1.000 (stored ± 0.005); no figure is stored of b")),
    (True, {"a": {"1": 0.5, "all": 1.0}}, ("FAILED", "a, class 1: Dice 1.0, stored is 0.5 ± 0.005")),
])  # fmt: skip
def test_of_the_cases_given_those_with_a_stored_figure_are_compared(bundle, given, dice, expected):
    made = bundle({"dice": dice}, predictions={"a": labels(1), "b": labels(1)})
    folder = made.work if given else made.root
    made.sample = folder if given else None
    for case in ("a", "b"):
        add_case(folder, case)
    assert main.outcome(predictions.check_accuracy, made) == expected


def test_a_prediction_is_found_by_a_name_that_looks_like_a_pattern(tmp_path):
    for name, voxels in (("a[1]", 5), ("a1", 6)):
        nib.save(labels(voxels), tmp_path / f"{name}_seg.nii.gz")
    (prediction,) = samples.read_predictions(tmp_path, ["a[1]"]).values()
    assert np.asarray(prediction.dataobj).sum() == 5
