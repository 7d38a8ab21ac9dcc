import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from rare_unet_networks.data import modality_datalist
from rare_unet_networks.transforms.modalities import LoadModalitiesd, RandDropChannelsd

CONFIG = Path(__file__).parents[2] / "bundles/brain_tumor_mri_segmentation/configs/inference.json"
PATTERNS = json.loads(CONFIG.read_text())["modalities"]


def save(path, value=1.0, size=(6, 5, 4), affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.full(size, value, dtype=np.float32) if np.isscalar(value) else value
    nib.save(nib.Nifti1Image(data, np.eye(4) if affine is None else affine), path)
    return str(path)


# names of one patient's files in the order of PATTERNS, the case's name
CASES = [
    (["B_1_flair", "B_1_t1", "B_1_t1ce", "B_1_t2"], "B_1"),
    (["BraTS-GLI-00000-000-t2f", "BraTS-GLI-00000-000-t1n", "BraTS-GLI-00000-000-t1c", "BraTS-GLI-00000-000-t2w"],
     "BraTS-GLI-00000-000"),
    (["sub-01_FLAIR", "sub-01_T1w", "sub-01_ce-gad_T1w", "sub-01_T2w"], "sub-01"),
    (["sub-01_ses-1_FLAIR", "sub-01_ses-1_run-1_T1w", "sub-01_ses-1_ce-Gd3_run-1_T1w", "sub-01_ses-1_acq-tse_T2w"],
     "sub-01_ses-1"),
    (["sub-01_FLAIR_bet", "sub-01_desc-brain_T1w", "sub-01_ce-gadolinium_T1w_bet", "sub-01_T2w_brain"], "sub-01"),
    (["flair", "t1", "t1ce", "t2"], "patient"),
    (["p.1_flair", "p.1_t1", "p.1_t1ce", "p.1_t2"], "p.1"),
]  # fmt: skip


@pytest.mark.parametrize("names, case", CASES)
def test_files_of_a_folder_are_recognised_by_name_and_loaded_in_the_networks_order(tmp_path, names, case):
    for value, name in enumerate(names):
        save(tmp_path / case / f"{name}.nii.gz", value)
    for label in (f"{case}_seg", f"{case}-seg"):  # a prediction, or BraTS's label
        save(tmp_path / case / f"{label}.nii.gz")
    (item,) = modality_datalist(tmp_path, PATTERNS)
    assert item["case"] == case and "failure" not in item
    image = LoadModalitiesd("image", PATTERNS)(item)["image"]
    assert image.shape == (4, 6, 5, 4)
    assert image.flatten(1).unique(dim=1)[:, 0].tolist() == [0, 1, 2, 3]
    assert image.meta["filename_or_obj"] == str(tmp_path / case / f"{case}.nii.gz")


def test_a_list_names_files_by_modality_or_leaves_it_to_their_names(tmp_path):
    names = [f"p_{m}.nii.gz" for m in ("t2", "flair", "t1ce", "t1")]
    for name in names:
        save(tmp_path / name)
    save(tmp_path / "whole.nii.gz", np.zeros((6, 5, 4, 4), np.float32))
    entries = [
        {"image": names},
        {"image": {"FLAIR": names[0], "T1w": names[1], "T1Gd": names[2], "T2w": names[3]}, "case": "swapped"},
        {"image": "whole.nii.gz"},
    ]
    (tmp_path / "list.json").write_text(json.dumps(entries))
    by_name, swapped, whole = modality_datalist(tmp_path / "list.json", PATTERNS)
    assert by_name["image"] == {
        m: str(tmp_path / f"p_{n}.nii.gz")
        for m, n in {"T2w": "t2", "FLAIR": "flair", "T1Gd": "t1ce", "T1w": "t1"}.items()
    }
    assert by_name["case"] == "p" and swapped["case"] == "swapped"
    assert swapped["image"]["FLAIR"] == str(tmp_path / names[0])
    assert whole == {"image": str(tmp_path / "whole.nii.gz"), "case": "whole"}
    assert LoadModalitiesd("image", PATTERNS)(whole)["image"].shape == (4, 6, 5, 4)


ILL_CASES = [
    (["p_flair", "p_t1", "p_t2"], "no file of T1Gd (allow_missing true segments without)"),
    (["p_flair", "p_t1", "p_t1n", "p_t1ce", "p_t2"], "more than one file of T1w"),
]


@pytest.mark.parametrize("names, reason", ILL_CASES)
def test_a_case_with_a_modality_too_few_or_too_many_fails_alone(tmp_path, names, reason):
    for name in names:
        save(tmp_path / f"{name}.nii.gz")
    save(tmp_path / "other.nii.gz", np.zeros((6, 5, 4, 4), np.float32))
    ill, well = sorted(modality_datalist(tmp_path, PATTERNS), key=lambda item: "failure" not in item)
    assert ill["failure"] == reason and ill["case"] == "p"
    assert well == {"image": str(tmp_path / "other.nii.gz"), "case": "other"}


ILL_ENTRIES = [
    (
        {"image": ["a.nii.gz", "b_t1.nii.gz"]},
        "cannot infer the modality of a.nii.gz from the file name: use {modality: path} entries (FLAIR, T1w",
    ),
    ({"image": {"T1": "a.nii.gz"}}, "modalities must be of FLAIR, T1w, T1Gd, T2w, got T1"),
    ({"images": "a.nii.gz"}, "an entry of the list must have an image, a path or several, got {'images'"),
    ("a.nii.gz", "an entry of the list must have an image, a path or several, got a.nii.gz"),
    ({"image": ["p_t1.nii.gz", 3]}, "an entry of the list must have an image, a path or several, got {'image'"),
    ({"image": "a.nii.gz", "case": "b/c"}, "the case of an entry of the list must have no '/', got {'image'"),
]


@pytest.mark.parametrize("entry, reason", ILL_ENTRIES)
def test_an_entry_that_cannot_be_understood_fails_alone(tmp_path, entry, reason):
    (tmp_path / "list.json").write_text(json.dumps([entry, {"image": "b.nii.gz"}]))
    ill, well = modality_datalist(tmp_path / "list.json", PATTERNS)
    assert reason in ill["failure"] and "failure" not in well


def test_cases_that_would_write_the_same_prediction_fail(tmp_path):
    for folder in "ab":
        for name in ("p_flair", "p_t1", "p_t1ce", "p_t2"):
            save(tmp_path / folder / f"{name}.nii.gz")
    items = modality_datalist(tmp_path, PATTERNS)
    assert [item["failure"] for item in items] == ["another scan would write p_seg.nii.gz as well"] * 2
    items = modality_datalist(tmp_path, PATTERNS, grid="fine")
    assert [item["failure"] for item in items] == ["another scan would write p_fine_seg.nii.gz as well"] * 2


def test_without_a_modality_its_channel_is_empty_where_that_is_allowed(tmp_path, caplog):
    for name in ("p_flair", "p_t1", "p_t2"):
        save(tmp_path / f"{name}.nii.gz", 5)
    (item,) = modality_datalist(tmp_path, PATTERNS, allow_missing=True)
    assert f"{tmp_path}/p: no file of T1Gd, segmented without" in caplog.text
    image = LoadModalitiesd("image", PATTERNS)(item)["image"]
    assert image.flatten(1).unique(dim=1)[:, 0].tolist() == [5, 5, 0, 5]


def test_files_of_different_grids_are_brought_onto_the_finest_by_their_affines(tmp_path, caplog):
    """A ramp along z in mm: on every grid its value is where it lies, so on the joint grid all channels agree."""
    coarse = np.diag([1.0, 1, 3, 1])
    coarse[2, 3] = 1.0  # centres of blocks of three slices of 1 mm
    ramp = np.broadcast_to(np.arange(12.0, dtype=np.float32), (6, 5, 12))
    blocks = np.broadcast_to(np.arange(1.0, 12, 3, dtype=np.float32), (6, 5, 4))
    flipped = np.diag([1.0, 1, -1, 1])
    flipped[2, 3] = 11
    paths = {
        "T2w": save(tmp_path / "p_t2.nii.gz", blocks, affine=coarse),
        "FLAIR": save(tmp_path / "p_flair.nii.gz", ramp),
        "T1w": save(tmp_path / "p_t1.nii.gz", ramp[..., ::-1].copy(), affine=flipped),
        "T1Gd": save(tmp_path / "p_t1ce.nii.gz", ramp),
    }
    with caplog.at_level("DEBUG"):
        image = LoadModalitiesd("image", PATTERNS)({"image": paths, "case": "p"})["image"]
    moved = [f"{paths[m]}: resampled onto the grid of p_flair.nii.gz" for m in ("T1w", "T2w")]
    assert [record.getMessage() for record in caplog.records if "resampled" in record.getMessage()] == moved
    assert image.shape == (4, 6, 5, 12) and torch.equal(image.affine, torch.eye(4, dtype=torch.float64))
    for channel in image:
        torch.testing.assert_close(channel[2, 2, 1:11].as_tensor(), torch.arange(1.0, 11.0))


def test_files_of_different_places_or_with_channels_of_their_own_are_refused(tmp_path):
    away = np.eye(4)
    away[0, 3] = 500
    paths = {m: save(tmp_path / f"p_{m}.nii.gz") for m in PATTERNS}
    load = LoadModalitiesd("image", PATTERNS)
    far = save(tmp_path / "far_t2.nii.gz", affine=away)
    with pytest.raises(ValueError, match=r"far_t2\.nii\.gz and .*FLAIR\.nii\.gz lie in different places"):
        load({"image": {**paths, "T2w": far}})
    whole = save(tmp_path / "whole_t2.nii.gz", np.zeros((6, 5, 4, 2), np.float32))
    with pytest.raises(ValueError, match=r"whole_t2\.nii\.gz: expected one channel of T2w on 3 axes, got 2×6×5×4"):
        load({"image": {**paths, "T2w": whole}})


def test_dropped_channels_are_empty_as_often_as_configured_and_one_is_left():
    image = MetaTensor(torch.ones(4, 2, 2, 2))
    drop = RandDropChannelsd("image", prob=0.5).set_random_state(0)
    counts = [int((drop({"image": image})["image"].flatten(1).sum(dim=1) == 0).sum()) for _ in range(800)]
    assert torch.equal(image, torch.ones(4, 2, 2, 2)) and max(counts) == 3
    # Geometric and cut at three: probabilities 1/2, 1/4, 1/8, 1/8.
    assert [counts.count(n) / 800 for n in range(4)] == pytest.approx([0.5, 0.25, 0.125, 0.125], abs=0.05)
    assert drop.__class__("image", prob=0.0)({"image": image})["image"] is image
