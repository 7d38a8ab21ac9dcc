import json

import pytest

from rare_unet_networks.data import labelled_datalist

from .test_modalities import PATTERNS


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
        items = labelled_datalist(str(dataset), str(dataset / "splits.json"), split)
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
        labelled_datalist(str(dataset / folder), str(dataset / "splits.json"), split)


def test_cases_of_a_split_that_are_absent_are_named(tmp_path, caplog):
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "here.nii.gz").touch()
    splits = {"train": ["here", "gone", "astray"], "validation": ["here", *(f"elsewhere{i}" for i in range(6))]}
    (tmp_path / "splits.json").write_text(json.dumps(splits))
    for split in splits:
        labelled_datalist(str(tmp_path), str(tmp_path / "splits.json"), split)
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert warning == "split train: no image or no label of astray, gone"


CLASSES = ["edema", "non_enhancing", "enhancing"]
LABELS = {"background": 0, "Edema": 1, "non-enhancing": 2, "enhancing tumour": 3}


def nnunet_dataset(root, channels, labels=None, cases="ab", file_ending=".nii.gz"):
    """The files of a dataset as nnU-Net names them, empty, and its splits_final.json."""
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir()
    for case in cases:
        (root / "labelsTr" / f"{case}{file_ending}").touch()
        for i in range(len(channels)):
            (root / "imagesTr" / f"{case}_{i:04d}{file_ending}").touch()
    names = {str(i): name for i, name in enumerate(channels)}
    description = {"channel_names": names, "labels": labels or LABELS, "numTraining": len(cases)}
    (root / "dataset.json").write_text(json.dumps({**description, "file_ending": file_ending}))
    folds = [{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["a"]}]
    (root / "splits_final.json").write_text(json.dumps(folds))
    return str(root), str(root / "splits_final.json")


# names of channels in a dataset.json, the modality of each
CHANNELS = [
    (["FLAIR", "T1w", "t1gd", "T2w"], ["FLAIR", "T1w", "T1Gd", "T2w"]),
    (["T1", "T1ce", "T2", "Flair"], ["T1w", "T1Gd", "T2w", "FLAIR"]),
    (["t1n", "t1c", "t2w", "t2f"], ["T1w", "T1Gd", "T2w", "FLAIR"]),
]


@pytest.mark.parametrize("channels, modalities", CHANNELS)
def test_channels_of_nnunet_are_recognised_by_name(tmp_path, channels, modalities):
    paths = nnunet_dataset(tmp_path, channels)
    (item,) = labelled_datalist(*paths, "train", PATTERNS, CLASSES)
    assert item == {
        "image": {m: str(tmp_path / "imagesTr" / f"a_{i:04d}.nii.gz") for i, m in enumerate(modalities)},
        "label": str(tmp_path / "labelsTr" / "a.nii.gz"),
        "case": "a",
    }


@pytest.mark.parametrize("file_ending", [".nii.gz", ".nii"])
def test_the_one_channel_of_a_task_without_modalities_has_any_name(tmp_path, file_ending):
    paths = nnunet_dataset(tmp_path, ["noNorm"], file_ending=file_ending)
    (item,) = labelled_datalist(*paths, "validation")
    assert item["case"] == "b" and item["image"] == str(tmp_path / "imagesTr" / f"b_0000{file_ending}")


def test_folds_of_nnunet_are_splits_and_a_case_in_none_counts_as_test(tmp_path):
    paths = nnunet_dataset(tmp_path, ["MRI"], cases="abc")
    splits = {"fold_0_train": "a", "fold_0": "b", "fold_1_train": "b", "fold_1": "a", "test": "c"}
    for split in splits:
        assert [item["case"] for item in labelled_datalist(*paths, split)] == [splits[split]]
    (tmp_path / "splits.json").write_text(json.dumps({"train": ["b"], "test": ["c"]}))  # or lists of the bundle's kind
    assert [item["case"] for item in labelled_datalist(paths[0], str(tmp_path / "splits.json"), "test")] == ["a", "c"]


def test_a_case_without_one_of_its_channels_is_named_as_absent(tmp_path, caplog):
    paths = nnunet_dataset(tmp_path, ["FLAIR", "T1w", "T1Gd", "T2w"])
    (tmp_path / "imagesTr" / "a_0002.nii.gz").unlink()
    (tmp_path / "splits.json").write_text(json.dumps({"train": ["a", "b"]}))
    items = labelled_datalist(paths[0], str(tmp_path / "splits.json"), "train", PATTERNS)
    assert [item["case"] for item in items] == ["b"]
    assert "split train: no image or no label of a" in caplog.text


def test_the_decathlons_description_changes_nothing(dataset):
    (dataset / "dataset.json").write_text(json.dumps({"modality": {"0": "MRI"}, "labels": {"0": "background"}}))
    (item,) = labelled_datalist(str(dataset), str(dataset / "splits.json"), "train", class_names=CLASSES)
    assert item["image"].endswith("imagesTr/a.nii.gz")


ILL_CASES = [
    (dict(channels=["FLAIR", "T1w", "T1Gd", "CT"]), "one each; FLAIR is FLAIR, .*, CT is unknown"),
    (dict(channels=["FLAIR", "T1w", "T1Gd", "t1n"]), "one each; FLAIR is FLAIR, .*, t1n is T1w"),
    (dict(channels=["FLAIR", "T1w", "T2w"]), "channel_names must be FLAIR, T1w, T1Gd, T2w, one each"),
    (dict(channels=list(PATTERNS), labels={"background": 0, "enhancing": 1}), "must have enhancing as 3, got 1"),
    (dict(channels=list(PATTERNS), file_ending=".nrrd"), r"file_ending must be one of \.nii\.gz, \.nii, got '\.nrrd'"),
]


@pytest.mark.parametrize("options, match", ILL_CASES)
def test_a_dataset_of_nnunet_of_another_task_is_an_error(tmp_path, options, match):
    with pytest.raises(ValueError, match=match):
        labelled_datalist(*nnunet_dataset(tmp_path, **options), "train", PATTERNS, CLASSES)


def test_several_channels_for_a_task_without_modalities_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="channel_names must be one channel, got T1, T2"):
        labelled_datalist(*nnunet_dataset(tmp_path, ["T1", "T2"]), "train")


def test_folds_without_their_two_lists_are_an_error(tmp_path):
    paths = nnunet_dataset(tmp_path, ["MRI"])
    (tmp_path / "splits_final.json").write_text(json.dumps([["a"], ["b"]]))
    with pytest.raises(ValueError, match="splits_file must map names to cases or be nnU-Net's list of folds"):
        labelled_datalist(*paths, "train")


@pytest.mark.parametrize("name", ["splits_final.json", "dataset.json"])
def test_a_file_that_is_no_json_is_named(tmp_path, name):
    paths = nnunet_dataset(tmp_path, ["MRI"])
    next(tmp_path.rglob(name)).write_text('{"train": ["a",]')
    with pytest.raises(ValueError, match=rf"{name} must be a JSON file: .* line 1 column"):
        labelled_datalist(*paths, "train")


def without_channel_names(root):
    (root / "dataset.json").write_text(json.dumps({"modality": {"0": "MRI"}}))


def without_labels(root):
    for label in (root / "labelsTr").iterdir():
        label.unlink()


def with_suffixes(root):
    (root / "splits_final.json").write_text(json.dumps({"train": ["a.nii.gz"]}))


@pytest.mark.parametrize(
    "spoil, why",
    [
        (without_channel_names, "named as nnU-Net's, whose dataset.json must have channel_names"),
        (without_labels, "there is no label of a"),
        (with_suffixes, "cases must be named without suffix, got a.nii.gz"),
    ],
)
def test_why_a_split_has_no_case_is_said(tmp_path, spoil, why):
    paths = nnunet_dataset(tmp_path, ["MRI"])
    spoil(tmp_path)
    with pytest.raises(ValueError, match=f"none of the 1 cases of split 'train' of .*: .*{why}"):
        labelled_datalist(*paths, "train")
