import json

import pytest

from rare_unet_networks.data import collect_volumes
from rare_unet_networks.data.head_volumes import asymmetry, asymmetry_reason, side_totals, write_label_names

VOLUMES = {
    "left anterior": {"voxels": 10, "mm3": 80.0, "mm3_fine": 90.0},
    "left posterior": {"voxels": 20, "mm3": 160.0, "mm3_fine": 150.0},
    "right anterior": {"voxels": 5, "mm3": 40.0, "mm3_fine": 60.0},
    "right posterior": {"voxels": 15, "mm3": 120.0, "mm3_fine": 100.0},
}


def test_sides_are_summed_and_compared():
    totals = side_totals(VOLUMES, ["left", "right"])
    assert totals == {
        "left": {"voxels": 30, "mm3": 240.0, "mm3_fine": 240.0},
        "right": {"voxels": 20, "mm3": 160.0, "mm3_fine": 160.0},
        "both": {"voxels": 50, "mm3": 400.0, "mm3_fine": 400.0},
    }
    assert asymmetry(totals) == pytest.approx(100 * 80 / 200)  # 80 more, of a mean of 200


def test_without_a_fine_grid_the_scans_own_counts():
    volumes = {name: {**volume, "mm3_fine": None} for name, volume in VOLUMES.items()}
    totals = side_totals(volumes, ["left", "right"])
    assert totals["both"] == {"voxels": 50, "mm3": 400.0, "mm3_fine": None}
    assert asymmetry(totals) == pytest.approx(40)


def test_sides_that_differ_by_more_than_the_limit_are_a_reason_to_review():
    reason = ["left and right differ by 41 % of their mean volume (the limit is 40 %)"]
    assert asymmetry_reason(40.6, 40) == asymmetry_reason(-40.6, 40) == reason
    assert asymmetry_reason(40.0, 40) == asymmetry_reason(None, 40) == asymmetry_reason(90.0, None) == []


def test_one_side_has_no_asymmetry_and_no_sum_of_both():
    left = {name: volume for name, volume in VOLUMES.items() if name.startswith("left")}
    totals = side_totals(left, ["left"])
    assert list(totals) == ["left"] and asymmetry(totals) is None
    empty = {"voxels": 0, "mm3": 0.0, "mm3_fine": 0.0}
    assert asymmetry(side_totals({"left a": empty, "right a": empty}, ["left", "right"])) is None


def test_the_names_of_labels_stand_beside_the_prediction(tmp_path):
    path = write_label_names(tmp_path / "a_seg.nii.gz", list(VOLUMES))
    assert path.name == "a_seg.tsv"
    lines = path.read_text().splitlines()
    assert lines[:2] == ["index\tname", "1\tleft anterior"] and lines[4] == "4\tright posterior" and len(lines) == 5


def test_volumes_csv_has_rows_for_each_side_and_both(tmp_path):
    totals = side_totals(VOLUMES, ["left", "right"])
    record = {"case": "a", "spacing": [2, 2, 2], "level": 1, "seconds": 1.0, "volumes": VOLUMES, "totals": totals}
    (tmp_path / "a_seg.json").write_text(json.dumps({**record, "asymmetry": asymmetry(totals)}))
    rows = {row["class"]: row for row in collect_volumes(tmp_path)}
    assert list(rows) == [*VOLUMES, "left", "right", "both"]
    assert rows["both"]["mm3"] == "400.0000" and rows["both"]["asymmetry"] == "40.0000"
    assert rows["left"]["voxels"] == 30 and rows["left"]["asymmetry"] == ""
