"""Scans to segment in folders of datasets: of the Decathlon, and of nnU-Net with a file per channel."""

import json
from pathlib import Path

import pytest

from rare_unet_networks.data import scan_datalist

MODALITIES = {"FLAIR": "(^|_)flair$", "T1w": "(^|_)t1$"}
NNUNET = {"channel_names": {"0": "T1", "1": "FLAIR"}, "labels": {"background": 0}, "file_ending": ".nii.gz"}
ONE = {**NNUNET, "channel_names": {"0": "MRI"}}
DECATHLON = {"name": "x", "modality": {"0": "MRI"}}


def dataset(root, names, description=None):
    """Empty files, and a dataset.json."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    if description is not None:
        (root / "dataset.json").write_text(json.dumps(description))
    return root


def files(items):
    """Case to the names of its files, in order."""
    found = {}
    for item in items:
        image = item["image"]
        paths = image if isinstance(image, dict) else {"": image}
        found[item["case"]] = {key: Path(path).parent.name + "/" + Path(path).name for key, path in paths.items()}
    return found


TWO = ["a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz", "b_0001.nii.gz"]


@pytest.mark.parametrize("folder", ["", "imagesTr"])
def test_a_dataset_of_nnunet_gives_its_cases_by_channel_and_no_labels(tmp_path, folder):
    names = [f"imagesTr/{name}" for name in TWO] + ["labelsTr/a.nii.gz", "labelsTr/b.nii.gz"]
    root = dataset(tmp_path, names, NNUNET)
    items = scan_datalist(str(root / folder), modalities=MODALITIES)
    assert files(items) == {
        case: {"T1w": f"imagesTr/{case}_0000.nii.gz", "FLAIR": f"imagesTr/{case}_0001.nii.gz"} for case in "ab"
    }
    assert not any("failure" in item for item in items)


def test_the_images_for_tests_are_taken_as_well(tmp_path):
    root = dataset(tmp_path, ["imagesTr/a_0000.nii.gz", "imagesTs/b_0000.nii.gz", "labelsTr/a.nii.gz"], ONE)
    assert files(scan_datalist(str(root))) == {
        "a": {"": "imagesTr/a_0000.nii.gz"},
        "b": {"": "imagesTs/b_0000.nii.gz"},
    }


@pytest.mark.parametrize("modalities", [None, MODALITIES], ids=["one channel", "modalities"])
def test_a_dataset_of_the_decathlon_gives_its_images_and_no_labels(tmp_path, modalities):
    root = dataset(tmp_path, ["imagesTr/a.nii.gz", "imagesTr/b.nii.gz", "labelsTr/a.nii.gz"], DECATHLON)
    assert files(scan_datalist(str(root), modalities=modalities)) == {
        case: {"": f"imagesTr/{case}.nii.gz"} for case in "ab"
    }


def test_the_files_of_one_channel_need_no_description(tmp_path):
    root = dataset(tmp_path / "scans", ["a_0000.nii.gz", "b_0000.nii.gz"])
    assert list(files(scan_datalist(str(root)))) == ["a", "b"]
    # Numbers that are no channels: years.
    root = dataset(tmp_path / "others", ["a_2019.nii.gz", "a_0000.nii.gz"])
    assert list(files(scan_datalist(str(root)))) == ["a_0000", "a_2019"]


def test_the_order_of_channels_is_not_guessed(tmp_path):
    with pytest.raises(ValueError, match=r"^input: the files of .* are named as nnU-Net's, .* dataset.json: put it"):
        scan_datalist(str(dataset(tmp_path, TWO)), modalities=MODALITIES)


def test_a_case_without_a_channel_fails_by_itself_or_is_segmented_without(tmp_path):
    root = dataset(tmp_path, [*TWO[:3], "notes_0007.nii.gz"], NNUNET)
    a, b = scan_datalist(str(root), modalities=MODALITIES)
    assert "failure" not in a and b["failure"] == "no file of FLAIR (allow_missing true segments without)"
    a, b = scan_datalist(str(root), modalities=MODALITIES, allow_missing="true")
    assert "failure" not in b and b["image"] == {"T1w": str(root / "b_0000.nii.gz")}


def test_other_files_are_named(tmp_path, caplog):
    root = dataset(tmp_path, ["a_0000.nii.gz", "notes_0007.nii.gz", "x.nii.gz"], ONE)
    with caplog.at_level("WARNING"):
        assert list(files(scan_datalist(str(root)))) == ["a"]
    assert caplog.messages == [f"{root}: no channel of the dataset: notes_0007.nii.gz, x.nii.gz"]


@pytest.mark.parametrize(
    "names, description, modalities, message",
    [
        (["x_0001.nii.gz"], ONE, None, "input must hold files such as CASE_0000.nii.gz, .* has none"),
        (TWO, NNUNET, None, "channel_names must be one channel, got T1, FLAIR"),
        (TWO, {**NNUNET, "channel_names": {"0": "T1", "1": "CT"}}, MODALITIES, "channel_names must be FLAIR, T1w"),
        (TWO, {**NNUNET, "file_ending": ".mha"}, MODALITIES, "file_ending must be one of .nii.gz, .nii, got '.mha'"),
    ],
)
def test_a_dataset_that_does_not_fit_is_an_error(tmp_path, names, description, modalities, message):
    with pytest.raises(ValueError, match=message):
        scan_datalist(str(dataset(tmp_path, names, description)), modalities=modalities)


def test_one_case_in_both_folders_would_be_written_twice(tmp_path):
    root = dataset(tmp_path, ["imagesTr/a_0000.nii.gz", "imagesTs/a_0000.nii.gz"], ONE)
    clash = "another scan would write a_seg.nii.gz as well"
    assert [item["failure"] for item in scan_datalist(str(root))] == [clash, clash]


@pytest.mark.parametrize("modalities", [None, MODALITIES])
def test_any_other_path_is_a_file_or_a_folder(tmp_path, modalities):
    dataset(tmp_path / "s", ["p_flair.nii.gz", "p_t1.nii.gz"])
    (tmp_path / "s" / "dataset.json").write_text("[]")  # of another program
    expected = ["p_flair", "p_t1"] if modalities is None else ["p"]
    assert list(files(scan_datalist(str(tmp_path / "s"), modalities=modalities))) == expected
    assert list(files(scan_datalist(str(tmp_path / "s" / "p_t1.nii.gz"), modalities=modalities))) == ["p_t1"]
    with pytest.raises(ValueError, match="absent does not exist"):
        scan_datalist(str(tmp_path / "absent"), modalities=modalities)
