"""Four modalities as a clinic exports them: free file names, DICOM studies, and paths by modality."""

import json
import shutil

import numpy as np
import pytest

from rare_unet_networks.data import modality_datalist
from rare_unet_networks.data.datalists import FAILURE
from rare_unet_networks.transforms import LoadModalitiesd

from .scans import write_series
from .test_folders import touch
from .test_modalities import PATTERNS

WORDS = {"FLAIR": "AX T2 FLAIR", "T1w": "AX T1", "T1Gd": "AX T1 POST", "T2w": "AX T2 TSE"}
VOXELS = np.random.default_rng(2).integers(1, 900, (24, 22, 12)).astype(np.int16)


def test_free_names_of_files_tell_the_modality_if_there_is_one_file_of_each(tmp_path):
    touch(tmp_path, *(f"p1/{words}.nii.gz" for words in WORDS.values()))
    touch(tmp_path, "p2/p2_flair.nii.gz", "p2/p2_t1.nii.gz", "p2/p2_t1ce.nii.gz", "p2/p2_t2.nii.gz")
    first, second = modality_datalist(tmp_path, PATTERNS)
    assert (first["case"], second["case"]) == ("p1", "p2") and FAILURE not in first
    assert first["image"] == {m: str(tmp_path / "p1" / f"{words}.nii.gz") for m, words in WORDS.items()}
    touch(tmp_path, "p1/AX T2 again.nii.gz")
    cases = [item["case"] for item in modality_datalist(tmp_path, PATTERNS)]
    assert sorted(cases) == sorted(["p2", "AX T2 again", *WORDS.values()])  # then each is taken for a whole scan


def test_whole_scans_whose_names_hold_such_a_word_stay_whole(tmp_path):
    touch(tmp_path, "brats_t1_t2_stack.nii.gz", "other.nii.gz")
    assert [item["case"] for item in modality_datalist(tmp_path, PATTERNS)] == ["brats_t1_t2_stack", "other"]


@pytest.fixture
def study(tmp_path):
    """A study whose series have different grids, in a folder each, and a second T1w with thick slices."""
    pytest.importorskip("pydicom", reason="DICOM needs pydicom")
    for number, (modality, words) in enumerate(WORDS.items(), start=1):
        voxels, affine = (VOXELS, np.eye(4)) if modality == "T1w" else (VOXELS[::2, ::2], np.diag([2.0, 2, 1, 1]))
        write_series(tmp_path / f"p1/{number}", voxels, affine, SeriesNumber=number, SeriesDescription=words)
    write_series(tmp_path / "p1/9", VOXELS[:, :, :9], np.diag([1.0, 1, 4, 1]), SeriesNumber=9)
    write_series(tmp_path / "p1/8", VOXELS, np.eye(4), SeriesNumber=8, SeriesDescription="DWI")
    return tmp_path


def test_the_series_of_a_study_are_a_case_with_the_finest_series_of_each_modality(study, caplog):
    (item,) = modality_datalist(study, PATTERNS)
    assert item["case"] == "p1" and FAILURE not in item
    assert {m: {f.rsplit("/", 2)[1] for f in files} for m, files in item["image"].items()} == {
        "FLAIR": {"1"}, "T1w": {"2"}, "T1Gd": {"3"}, "T2w": {"4"}
    }  # fmt: skip
    assert "another series of T1w has voxels as fine or finer: p1/9: series 9 (t1_mprage_sag) of 9 file" in caplog.text
    assert "left out, because it is diffusion: p1/8: series 8 (DWI) of 12 file(s)" in caplog.text
    image = LoadModalitiesd("image", PATTERNS)(item)["image"]
    assert image.shape == (4, 24, 22, 12) and image.pixdim.tolist() == [1, 1, 1]
    assert float(image[list(PATTERNS).index("T1w")].max()) == VOXELS.max()


def test_a_folders_name_tells_the_modality_before_the_description_does(study):
    shutil.rmtree(study / "p1/9")
    (study / "p1/2").rename(study / "p1/T1Gd")
    (study / "p1/3").rename(study / "p1/T1")
    (item,) = modality_datalist(study, PATTERNS)
    assert "/T1Gd/" in item["image"]["T1Gd"][0] and "/T1/" in item["image"]["T1w"][0]


def test_a_study_without_a_modality_fails_and_two_studies_are_two_cases(study):
    for path in (study / "p1/4").iterdir():
        path.unlink()
    write_series(study / "p2/a", VOXELS, np.eye(4), StudyInstanceUID="1.2.3", SeriesDescription="FLAIR")
    first, second = modality_datalist(study, PATTERNS)
    assert (first["case"], first[FAILURE]) == ("p1", "no file of T2w (allow_missing true segments without)")
    assert second["case"] == "p2/a" and "no file of T1w, T1Gd, T2w" in second[FAILURE]


def test_a_list_gives_folders_of_series_and_files_by_modality(study):
    paths = {"FLAIR": "p1/1", "T1w": "p1/2", "T1Gd": "p1/3", "T2w": "p1/4"}
    entries = [{"image": paths, "case": "mine"}, {"image": {**paths, "T2w": "p1"}}]
    (study / "list.json").write_text(json.dumps(entries))
    good, ill = modality_datalist(study / "list.json", PATTERNS)
    assert good["case"] == "mine" and all(len(files) == 12 for files in good["image"].values())
    assert ill[FAILURE] == f"{study / 'p1'}: expected a folder with one DICOM series, got 0"
