import json

import pytest

from rare_unet_networks import at_levels, case_name, input_datalist, msd_datalist


@pytest.fixture
def dataset(tmp_path):
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
        for case in ("a", "b", "c", "new"):
            (tmp_path / folder / f"{case}.nii.gz").touch()
        (tmp_path / folder / "._a.nii.gz").touch()
    (tmp_path / "imagesTr" / "unlabelled.nii.gz").touch()
    splits = {"train": ["a", "absent"], "validation": ["b"], "test": ["c", "unlabelled"], "other": ["gone"]}
    (tmp_path / "splits.json").write_text(json.dumps(splits))
    return tmp_path


@pytest.mark.parametrize(
    "split, cases",
    [("train", ["a"]), ("validation", ["b"]), ("test", ["c", "new"])],  # a case in no list counts as test
)
def test_only_labelled_cases_of_the_split_that_are_present_are_used(dataset, split, cases, caplog):
    with caplog.at_level("INFO"):
        items = msd_datalist(str(dataset), str(dataset / "splits.json"), split)
    assert [item["case"] for item in items] == cases
    assert all(item["image"].endswith(f"imagesTr/{item['case']}.nii.gz") for item in items)
    assert f"split {split}: {len(cases)} of" in caplog.text


@pytest.mark.parametrize(
    "folder, split, match",
    [
        ("nowhere", "train", "dataset_dir must be a folder .*nowhere is missing"),
        ("", "valid", "split must be one of .* got 'valid'"),
        ("", "other", "none of the 1 cases of split 'other' of .* is in "),
    ],
)
def test_missing_folder_unknown_split_and_empty_split_are_errors(dataset, folder, split, match):
    with pytest.raises(ValueError, match=match):
        msd_datalist(str(dataset / folder), str(dataset / "splits.json"), split)


def test_at_levels_repeats_every_item():
    assert at_levels([{"case": "a"}, {"case": "b"}], [0, 2]) == [
        {"case": "a", "level": 0},
        {"case": "a", "level": 2},
        {"case": "b", "level": 0},
        {"case": "b", "level": 2},
    ]


@pytest.mark.parametrize(
    "path, name", [("/x/a.nii.gz", "a"), ("b.c.nii", "b.c"), ("d.mgz", "d.mgz"), ("E.NII.GZ", "E")]
)
def test_case_name_is_the_file_name_without_suffix(path, name):
    assert case_name(path) == name


def test_input_is_a_file_or_the_niftis_of_a_folder(tmp_path):
    for name in ("b.nii", "a.nii.gz", "a_seg.nii.gz", "notes.txt", ".hidden.nii"):
        (tmp_path / name).touch()
    assert [item["case"] for item in input_datalist(str(tmp_path))] == ["a", "b"]
    assert [item["case"] for item in input_datalist(str(tmp_path / "a_seg.nii.gz"))] == ["a_seg"]


def test_scans_that_would_write_one_answer_are_marked_and_the_others_are_not(tmp_path):
    for name in ("a.nii", "a.nii.gz", "b.nii"):
        (tmp_path / name).touch()
    reasons = {item["image"].rsplit("/", 1)[1]: item.get("failure") for item in input_datalist(str(tmp_path))}
    clash = "another scan would write a_seg.nii.gz as well"
    assert reasons == {"a.nii": clash, "a.nii.gz": clash, "b.nii": None}


def test_a_folder_whose_name_is_a_number_is_taken(tmp_path, monkeypatch):
    (tmp_path / "2024").mkdir()
    (tmp_path / "2024" / "a.nii").touch()
    monkeypatch.chdir(tmp_path)
    assert [item["case"] for item in input_datalist(2024)] == ["a"]  # the command line makes it a number


@pytest.mark.parametrize(
    "files, match",
    [([], "has none"), (["a_seg.nii.gz", "notes.txt"], "has none"), (None, "does not exist")],
)
def test_ill_input_is_an_error(tmp_path, files, match):
    folder = tmp_path / "in"
    if files is not None:
        folder.mkdir()
        for name in files:
            (folder / name).touch()
    with pytest.raises(ValueError, match=match):
        input_datalist(str(folder))


def test_cases_of_a_split_that_are_absent_are_named(tmp_path, caplog):
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "here.nii.gz").touch()
    splits = {"train": ["here", "gone", "astray"], "validation": ["here", *(f"elsewhere{i}" for i in range(6))]}
    (tmp_path / "splits.json").write_text(json.dumps(splits))
    for split in splits:
        msd_datalist(str(tmp_path), str(tmp_path / "splits.json"), split)
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert warning == "split train: no image or no label of astray, gone"
