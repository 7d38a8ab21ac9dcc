"""Folders with subfolders, of all formats, and BIDS data sets: cases, files of predictions, what is left out."""

import json

import pytest

from rare_unet_networks.data import CaseRecords, collect_volumes, input_datalist, modality_datalist, prediction_path
from rare_unet_networks.data.bids_files import bids_sidecar

from .test_modalities import PATTERNS


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def cases(root):
    return [item["case"] for item in input_datalist(root)]


def test_a_case_keeps_its_subfolders_so_that_equal_names_do_not_clash(tmp_path):
    names = ["b.nii", "p1/T1.nii.gz", "p2/T1.mgz", "p2/deep/er/T1.nrrd", "p3/T1.mha"]
    touch(tmp_path, *names, "p1/T1_seg.nii.gz", "p1/T1_dseg.nii.gz", ".hidden/T1.nii", "p1/notes.txt")
    assert cases(tmp_path) == ["b", "p1/T1", "p2/T1", "p2/deep/er/T1", "p3/T1"]
    assert [item["image"] for item in input_datalist(tmp_path)] == [str(tmp_path / name) for name in names]
    assert str(prediction_path("p1/T1", "fine", "out")) == "out/p1/T1_fine_seg.nii.gz"


def test_one_scan_in_two_formats_would_write_one_prediction(tmp_path):
    touch(tmp_path, "p/T1.nii.gz", "p/T1.mgz", "q/T1.mgz")
    reasons = {item["image"].removeprefix(f"{tmp_path}/"): item.get("failure") for item in input_datalist(tmp_path)}
    clash = "another scan would write p/T1_seg.nii.gz as well"
    assert reasons == {"p/T1.nii.gz": clash, "p/T1.mgz": clash, "q/T1.mgz": None}


BIDS = [
    "sub-01/anat/sub-01_T1w.nii.gz",
    "sub-02/ses-a/anat/sub-02_ses-a_acq-mprage_run-2_T1w.nii",
    "sub-02/ses-b/anat/sub-02_ses-b_T1w.nii.gz",
]
OTHERS = ["sub-01/anat/sub-01_T2w.nii.gz", "sub-01/func/sub-01_task-rest_bold.nii.gz", "sub-01/anat/other_T1w.nii.gz"]
OTHERS += ["derivatives/x/sub-01/anat/sub-01_T1w.nii.gz", "sourcedata/sub-01_T1w.nii.gz"]
DERIVATIVES = [
    "sub-01/anat/sub-01_dseg.nii.gz",
    "sub-02/ses-a/anat/sub-02_ses-a_acq-mprage_run-2_dseg.nii.gz",
    "sub-02/ses-b/anat/sub-02_ses-b_dseg.nii.gz",
]


@pytest.mark.parametrize("has_description", [True, False])
def test_of_a_bids_data_set_the_t1w_scans_are_taken_and_entities_are_kept(tmp_path, caplog, has_description):
    touch(tmp_path, *BIDS, *OTHERS)
    if has_description:
        (tmp_path / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    with caplog.at_level("INFO"):
        items = input_datalist(tmp_path)
    assert [item["image"] for item in items] == [str(tmp_path / name) for name in BIDS]
    assert [str(prediction_path(item["case"], "scan", "out")) for item in items] == [f"out/{n}" for n in DERIVATIVES]
    fine = prediction_path(items[1]["case"], "fine", "out")
    assert fine.name == "sub-02_ses-a_acq-mprage_run-2_res-fine_dseg.nii.gz"
    left_out = "left out, because a BIDS data set is read as sub-*/[ses-*/]anat/*_T1w.nii.gz: "
    assert f"{tmp_path}: {left_out}{', '.join(sorted(OTHERS))}" in caplog.text


def test_a_folder_that_only_looks_a_little_like_bids_is_none(tmp_path):
    touch(tmp_path, "sub-01/sub-01_T1w.nii.gz", "sub-01/T1.nii.gz")
    (tmp_path / "dataset_description.json").write_text('{"Name": "x"}')
    assert cases(tmp_path) == ["sub-01/T1", "sub-01/sub-01_T1w"]
    assert prediction_path("sub-01/sub-01_T1w", "scan", "").name == "sub-01_T1w_seg.nii.gz"
    (tmp_path / "dataset_description.json").write_text("{")
    with pytest.raises(ValueError, match=r"dataset_description\.json must be a JSON file"):
        input_datalist(tmp_path)


def test_tumours_of_a_bids_data_set_get_a_derivative_each(tmp_path):
    for folder, entities in (("sub-1/anat", "sub-1"), ("sub-2/ses-1/anat", "sub-2_ses-1")):
        touch(tmp_path, *(f"{folder}/{entities}_{m}.nii.gz" for m in ("FLAIR", "T1w", "ce-gd_T1w", "T2w")))
    patterns = {**PATTERNS, "FLAIR": "_flair$", "T1Gd": "_ce-gd_t1w$", "T1w": "_t1w$", "T2w": "_t2w$"}
    items = modality_datalist(tmp_path, patterns)
    assert [item["case"] for item in items] == ["sub-1/anat/sub-1", "sub-2/ses-1/anat/sub-2_ses-1"]
    names = [prediction_path(item["case"], "scan", "").as_posix() for item in items]
    assert names == ["sub-1/anat/sub-1_dseg.nii.gz", "sub-2/ses-1/anat/sub-2_ses-1_dseg.nii.gz"]


def finished(
    tmp_path, case, names=("anterior", "posterior"), scan="sub-01/anat/sub-01_T1w.nii.gz", grid="scan", **entries
):
    """Does a case as the sampler, the writer and the handler do; returns its record."""
    touch(tmp_path, f"raw/{scan}", "model.pt")
    records = CaseRecords(str(tmp_path / "out"), grid, str(tmp_path / "model.pt"))
    assert records.acquire({"image": str(tmp_path / "raw" / scan), "case": case})
    records.begin(case)
    touch(tmp_path / "out", prediction_path(case, grid, ""))
    volumes = {name: {"voxels": 3, "mm3": 12.0, "mm3_fine": 11.5} for name in names}
    return records.write(case, spacing=[1, 1, 1], level=0, seconds=1.0, volumes=volumes, **entries)


def test_derivatives_are_described_by_a_sidecar_each_and_three_files(tmp_path):
    case, out = "sub-01/anat/sub-01_T1w", tmp_path / "out"
    record = finished(tmp_path, case)
    assert json.loads((out / "sub-01/anat/sub-01_dseg.json").read_text()) == record
    assert record["Sources"] == ["bids:raw:sub-01/anat/sub-01_T1w.nii.gz"] and record["Manual"] is False
    rows = collect_volumes(out)
    assert [row["case"] for row in rows] == [case, case]
    assert (out / "dseg.tsv").read_text() == "index\tname\n0\tbackground\n1\tanterior\n2\tposterior\n"
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"] == [{"Name": "rare-unet-networks", "Version": record["version"]}]
    assert description["DatasetLinks"] == {"raw": (tmp_path / "raw").as_uri()}
    assert "volumes.csv\nreport.html\n" in (out / ".bidsignore").read_text()
    (out / "dataset_description.json").write_text('{"Name": "mine"}')
    collect_volumes(out)
    assert (out / "dataset_description.json").read_text() == '{"Name": "mine"}'


def test_a_derivative_on_the_fine_grid_says_what_its_resolution_is(tmp_path):
    record = finished(tmp_path, "sub-01/anat/sub-01_T1w", grid="fine")
    assert list(record["Resolution"]) == ["fine"]
    assert (tmp_path / "out/sub-01/anat/sub-01_res-fine_dseg.json").is_file()
    assert bids_sidecar("sub-01_T1w", "fine", ["a.nii"]) == {}


def test_other_cases_get_no_files_of_bids(tmp_path):
    finished(tmp_path, "p/a", scan="p/a.nii.gz")
    collect_volumes(tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "labels_itksnap.txt", "labels_slicer.ctbl", "p", "volumes.csv",
    ]  # fmt: skip


def test_cases_of_different_labels_get_a_table_each(tmp_path):
    out = tmp_path / "out"
    finished(tmp_path, "sub-01/anat/sub-01_T1w")
    collect_volumes(out)
    assert (out / "dseg.tsv").is_file()
    finished(tmp_path, "sub-02/anat/sub-02_T1w", ("left a",), labels={"1": "left a", "2": "right a"})
    collect_volumes(out)
    assert not (out / "dseg.tsv").exists()
    assert (
        out / "sub-01/anat/sub-01_dseg.tsv"
    ).read_text() == "index\tname\n0\tbackground\n1\tanterior\n2\tposterior\n"
    assert (out / "sub-02/anat/sub-02_dseg.tsv").read_text() == "index\tname\n0\tbackground\n1\tleft a\n2\tright a\n"


def test_records_of_another_run_in_a_subfolder_do_not_count(tmp_path):
    finished(tmp_path, "a", scan="a.nii.gz")
    (tmp_path / "out").rename(tmp_path / "inner")
    finished(tmp_path, "b", scan="b.nii.gz")
    (tmp_path / "inner").rename(tmp_path / "out" / "inner")
    assert {row["case"] for row in collect_volumes(tmp_path / "out")} == {"b"}
    assert {row["case"] for row in collect_volumes(tmp_path / "out" / "inner")} == {"a"}
