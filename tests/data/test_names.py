"""Names of files and cases: formats without a reader, capitals, control characters, bytes that are no UTF-8."""

import json
import os
import sys

import pytest

from rare_unet_networks.data import input_datalist, labelled_datalist, modality_datalist
from rare_unet_networks.data.datalists import name_fault

from .test_modalities import PATTERNS


def test_every_file_that_a_folder_leaves_out_is_named(tmp_path, caplog):
    for name in ("a.nii.gz", "B.NII.GZ", "c.mhd", "c.raw", "d.MGZ", "e.npy", "a_seg.nii.gz", "F-SEG.nii", "notes.txt"):
        (tmp_path / name).touch()
    with caplog.at_level("INFO"):
        assert [item["case"] for item in input_datalist(tmp_path)] == ["B", "a", "d"]
    messages = {record.levelname: [] for record in caplog.records}
    for record in caplog.records:
        messages[record.levelname].append(record.getMessage())
    (warning,) = messages["WARNING"]
    assert "left out, because no reader is declared for these formats: c.mhd, e.npy" in warning
    assert (
        f"{tmp_path}: earlier predictions, labels and hidden files are left out: F-SEG.nii, a_seg.nii.gz"
        in messages["INFO"]
    )
    assert f"{tmp_path}: files that are no scans are left out: c.raw, notes.txt" in messages["INFO"]


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and links")
def test_pipes_and_links_to_folders_are_named_and_not_opened(tmp_path, caplog, monkeypatch):
    folder = tmp_path / "scans"
    (folder / "closed").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (folder / "a.nii.gz").touch()
    for name in ("pipe", "pipe.dcm"):
        os.mkfifo(folder / name)  # opening one would wait for ever
    (folder / "zero.ima").symlink_to("/dev/zero")
    (folder / "gone").symlink_to("nowhere")
    (folder / "subject").symlink_to(tmp_path / "elsewhere")
    scandir = os.scandir
    monkeypatch.setattr(
        os, "scandir", lambda path: os.listdir(f"{path}/no") if "closed" in str(path) else scandir(path)
    )
    assert [item["case"] for item in input_datalist(folder)] == ["a"]
    assert "links to folders: gone, pipe, pipe.dcm, subject, zero.ima\n" in caplog.text
    assert "left out, because these folders cannot be opened: closed/no" in caplog.text


def test_many_files_left_out_are_counted(tmp_path, caplog):
    (tmp_path / "a.nii").touch()
    for i in range(60):
        (tmp_path / f"{i:02d}.mnc").touch()
    input_datalist(tmp_path)
    assert "48.mnc, 49.mnc and 10 more" in caplog.text


def test_a_folder_of_another_format_says_so(tmp_path):
    (tmp_path / "a.mhd").touch()
    with pytest.raises(ValueError, match=r"has none that can be used, but a.mhd"):
        input_datalist(tmp_path)


def test_names_that_differ_in_capitals_alone_would_write_one_prediction_on_some_systems(tmp_path):
    (tmp_path / "a.nii").touch()
    (tmp_path / "A.NII.GZ").touch()
    if len(list(tmp_path.iterdir())) == 2:
        assert all("another scan would write" in item["failure"] for item in input_datalist(tmp_path))


NAMES = ["a\nb", "a\rb", "\x1b[31ma", "a\x07", "a\u2028b", "a\x9bb"]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_would_break_a_line_of_the_log_are_refused_one_by_one(tmp_path, name):
    (tmp_path / f"{name}.nii.gz").touch()
    (tmp_path / "good.nii.gz").touch()
    failures = {item["case"]: item.get("failure") for item in input_datalist(tmp_path)}
    assert failures["good"] is None and "holds control characters" in failures[name]


@pytest.mark.parametrize("name", ["a b", "ä", "患者\u3000太郎", "a\u00a0b", "=1+1", "$a", "a'b\"c", "😀"])
def test_names_of_any_language_pass(name):
    assert name_fault(name) is None


@pytest.mark.parametrize("name, bytes_too_many", [("n" * 201, 201), ("ä" * 101, 202), ("n" * 200, 0), ("ä" * 100, 0)])
def test_a_name_that_is_too_long_for_the_files_of_its_case_is_refused_alone(tmp_path, name, bytes_too_many):
    for file in (name, "good"):
        (tmp_path / f"{file}.nii.gz").touch()
    good, long = input_datalist(tmp_path)
    expected = f"the name of a case must have at most 200 bytes, got {bytes_too_many}: rename the file"
    assert good["case"] == "good" and "failure" not in good
    assert long.get("failure") == (expected if bytes_too_many else None)
    assert long["image"].endswith(f"{name}.nii.gz") and len(long["case"].encode()) <= 200


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_no_utf8_is_refused_alone(tmp_path):
    (tmp_path / "good.nii.gz").touch()
    with open(os.fsencode(tmp_path) + b"/caf\xe9.nii.gz", "w"):
        pass
    failures = [item.get("failure") for item in input_datalist(tmp_path)]
    assert sorted(f is None for f in failures) == [False, True]
    assert any(f and "not UTF-8" in f for f in failures)


def test_a_label_with_such_a_name_is_left_out_and_said(tmp_path, caplog):
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
        for case in ("a", "b\nc"):
            (tmp_path / folder / f"{case}.nii.gz").touch()
    (item,) = _test_split(tmp_path)
    assert item["case"] == "a" and r"b\nc.nii.gz: the name holds control characters" in caplog.text


def _test_split(root):
    (root / "splits.json").write_text(json.dumps({"train": [], "test": []}))
    return labelled_datalist(root, root / "splits.json", "test")


def test_two_files_of_one_case_are_an_error(tmp_path):
    for name in ("imagesTr/a.nii", "imagesTr/a.nii.gz", "labelsTr/a.nii"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"a.nii.gz and a.nii are of one case"):
        _test_split(tmp_path)


CASES = [{"case": "a\\b"}, {"case": ".."}, {"case": ""}, {"case": "a\nb"}, {"image": "x\n.nii.gz"}]


@pytest.mark.parametrize("entry", CASES)
def test_a_list_cannot_name_a_case_so_that_its_prediction_lies_elsewhere(tmp_path, entry):
    (tmp_path / "list.json").write_text(json.dumps([{"image": "a.nii.gz", **entry}, {"image": "b.nii.gz"}]))
    ill, well = modality_datalist(tmp_path / "list.json", PATTERNS)
    assert "name" in ill["failure"] or "'/'" in ill["failure"]
    assert "failure" not in well


def description(root, **values):
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir()
    for name in ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"):
        (root / name).touch()
    content = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "x": 1}, "file_ending": ".nii.gz", **values}
    (root / "dataset.json").write_text(json.dumps(content))
    (root / "splits.json").write_text(json.dumps({"train": ["a"]}))
    return str(root), str(root / "splits.json"), "train"


@pytest.mark.parametrize(
    "values, match",
    [
        ({"channel_names": "T1"}, 'channel_names must map numbers from "0" to names, as in .*, got .T1.'),
        ({"channel_names": {"T1": 0}}, "channel_names must map numbers"),
        ({"channel_names": {"1": "T1"}}, "channel_names must map numbers"),
        ({"channel_names": {"0": {"name": "T1"}}}, "channel_names must map numbers"),
        ({"channel_names": []}, "channel_names must be one channel"),
        ({"labels": ["background", "x"]}, "labels must map names to numbers, as in .*, got"),
        ({"labels": {"0": "background", "1": "x"}}, "labels must map names to numbers"),
        ({"labels": {"background": "0", "x": "1"}}, "labels must map names to numbers"),
        ({"labels": {"x": True}}, "labels must map names to numbers"),
    ],
)
def test_a_description_written_by_hand_gets_a_clear_line(tmp_path, values, match):
    with pytest.raises(ValueError, match=match) as error:
        labelled_datalist(*description(tmp_path, **values), class_names=["x"])
    assert str(error.value).startswith(str(tmp_path / "dataset.json"))


def test_a_list_of_channels_counts_in_its_order(tmp_path):
    (item,) = labelled_datalist(*description(tmp_path, channel_names=["T1"]), class_names=["x"])
    assert item["image"].endswith("a_0000.nii.gz")


def test_a_description_that_is_a_list_gets_a_clear_line(tmp_path):
    arguments = description(tmp_path)
    (tmp_path / "dataset.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"dataset.json must be a JSON object such as .*, got \[1\]"):
        labelled_datalist(*arguments)


@pytest.mark.parametrize("content", [[], {}, {"train": "a"}, {"train": [1]}, [{"train": "a", "val": []}], "x"])
def test_splits_of_another_kind_are_an_error(tmp_path, content):
    arguments = description(tmp_path)
    (tmp_path / "splits.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"splits_file must map names to cases or be nnU-Net's list of folds, .* is"):
        labelled_datalist(*arguments)
