import pytest

from rare_unet_networks.data import case_id, expand_levels, input_datalist, prediction_path


def test_at_levels_repeats_every_item():
    assert expand_levels([{"case": "a"}, {"case": "b"}], [0, 2]) == [
        {"case": "a", "level": 0},
        {"case": "a", "level": 2},
        {"case": "b", "level": 0},
        {"case": "b", "level": 2},
    ]


@pytest.mark.parametrize(
    "path, name", [("/x/a.nii.gz", "a"), ("b.c.nii", "b.c"), ("d.mgz", "d"), ("E.NII.GZ", "E"), ("f.dcm", "f.dcm")]
)
def test_case_name_is_the_file_name_without_suffix(path, name):
    assert case_id(path) == name


def test_input_is_a_file_or_the_niftis_of_a_folder(tmp_path):
    for name in ("b.nii", "a.nii.gz", "a_seg.nii.gz", "notes.txt", ".hidden.nii"):
        (tmp_path / name).touch()
    assert [item["case"] for item in input_datalist(str(tmp_path))] == ["a", "b"]
    assert [item["case"] for item in input_datalist(str(tmp_path / "a_seg.nii.gz"))] == ["a_seg"]


@pytest.mark.parametrize("grid, expected", [("scan", "a_seg.nii.gz"), ("fine", "a_fine_seg.nii.gz")])
def test_scans_that_would_write_one_prediction_are_marked_and_the_others_are_not(tmp_path, grid, expected):
    for name in ("a.nii", "a.nii.gz", "b.nii"):
        (tmp_path / name).touch()
    reasons = {item["image"].rsplit("/", 1)[1]: item.get("failure") for item in input_datalist(str(tmp_path), grid)}
    clash = f"another scan would write {expected} as well"
    assert reasons == {"a.nii": clash, "a.nii.gz": clash, "b.nii": None}


def test_a_prediction_is_named_by_its_case_and_grid():
    assert str(prediction_path("a.b", "scan", "out")) == "out/a.b_seg.nii.gz"
    assert str(prediction_path("a.b", "fine", "out")) == "out/a.b_fine_seg.nii.gz"
    with pytest.raises(ValueError, match=r"grid must be one of \('scan', 'fine'\), got 'full'"):
        prediction_path("a", "full", "out")


def test_a_folder_whose_name_is_a_number_is_taken(tmp_path, monkeypatch):
    (tmp_path / "2024").mkdir()
    (tmp_path / "2024" / "a.nii").touch()
    monkeypatch.chdir(tmp_path)
    assert [item["case"] for item in input_datalist(2024)] == ["a"]  # the command line makes it a number


def test_an_empty_path_is_not_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "a.nii").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="input must be a scan or a folder of scans, got an empty path"):
        input_datalist("")


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
