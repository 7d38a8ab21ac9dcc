import json
import threading
import time

import pytest

from rare_unet_networks.data import CaseRecords, collect_volumes, prediction_path
from rare_unet_networks.data.record_files import claim_path, record_path
from rare_unet_networks.utils import Claims

HEADER = "case,class,voxels,mm3,mm3_fine,spacing,level,seconds,grid,side,asymmetry,review"


def record(folder, case, grid="scan", voxels=3, **entries):
    """A case that is done, with a reason to review it."""
    path = prediction_path(case, grid, folder)
    path.parent.mkdir(exist_ok=True)
    path.touch()
    volumes = {name: {"voxels": voxels, "mm3": 2.0 * voxels, "mm3_fine": 2.25} for name in ("anterior", "posterior")}
    content = {"case": case, "spacing": [1, 1, 2], "level": 0, "seconds": 1.5, "volumes": volumes}
    content |= {"grid": grid, "side": "left", "review": ["empty", "cut"], **entries}
    record_path(path).write_text(json.dumps(content))


def lines(folder):
    return (folder / "volumes.csv").read_text().splitlines()


def rows(case, voxels=3, more=",scan,left,,empty; cut"):
    mm3 = f"{2 * voxels:.4f}"
    return [f"{case},{name},{voxels},{mm3},2.2500,1x1x2,0,1.5000{more}" for name in ("anterior", "posterior")]


OLD, WITHOUT = (
    "",
    ",,,,",
)  # rows of version 0.6, which had no grid, side, asymmetry and review, and what becomes of them


def test_the_table_is_made_from_the_records_sorted_by_case(tmp_path, caplog):
    for case in ("b", "a.x", "a"):
        record(tmp_path, case)
    (tmp_path / "half_seg.json").write_text('{"case": "half"')
    (tmp_path / ".0123.c_seg.json").write_text((tmp_path / "b_seg.json").read_text().replace('"b"', '"c"'))
    with caplog.at_level("INFO"):
        collect_volumes(tmp_path)
    assert lines(tmp_path) == [HEADER, *rows("a"), *rows("a.x"), *rows("b")]
    assert f"{tmp_path / 'volumes.csv'} has the volumes of 3 case(s)" in caplog.text
    before = (tmp_path / "volumes.csv").read_bytes()
    collect_volumes(str(tmp_path))
    assert (tmp_path / "volumes.csv").read_bytes() == before
    assert not list(tmp_path.glob(".*claim"))


def test_rows_of_a_case_that_has_no_record_and_no_prediction_any_more_go(tmp_path):
    for case in ("a", "b"):
        record(tmp_path, case)
    collect_volumes(tmp_path)
    for name in ("a_seg.nii.gz", "a_seg.json"):
        (tmp_path / name).unlink()
    collect_volumes(tmp_path)
    assert lines(tmp_path) == [HEADER, *rows("b")]


def test_rows_of_a_case_that_is_being_done_again_or_failed_go(tmp_path):
    for case in ("a", "b"):
        record(tmp_path, case)
    collect_volumes(tmp_path)
    (tmp_path / "a_seg.json").unlink()
    claims = Claims()
    assert claims.acquire(claim_path(tmp_path / "a_seg.nii.gz"))
    collect_volumes(tmp_path)
    claims.release_all()
    collect_volumes(tmp_path)
    assert lines(tmp_path) == [HEADER, *rows("b")]


def test_a_folder_of_version_0_6_keeps_its_rows_until_its_cases_are_done_again(tmp_path):
    old = "case,class,voxels,mm3,mm3_full,spacing,level,seconds"
    (tmp_path / "volumes.csv").write_text(
        "\n".join([old, *rows("b", 7, OLD), *rows("gone", 3, OLD), *rows("a", 8, OLD), ""])
    )
    for name in ("a_fine_seg.nii.gz", "b_seg.nii.gz"):
        (tmp_path / name).touch()
    record(tmp_path, "c")
    collect_volumes(tmp_path)
    assert lines(tmp_path) == [HEADER, *rows("a", 8, WITHOUT), *rows("b", 7, WITHOUT), *rows("c")]
    record(tmp_path, "b", voxels=9)
    collect_volumes(tmp_path)
    assert lines(tmp_path) == [HEADER, *rows("a", 8, WITHOUT), *rows("b", 9), *rows("c")]


@pytest.mark.parametrize(
    "case, name, is_kept",
    [
        *((case, prediction_path(case, grid, ""), True) for case in ("a", "a[1]") for grid in ("scan", "fine")),
        ("a", "a_full_seg.nii.gz", True),  # level 0 grid in version 0.6
        *(("a", prediction_path("a_b", grid, ""), False) for grid in ("scan", "fine")),
        ("a", "a_b_full_seg.nii.gz", False),
    ],
)
def test_rows_without_a_record_are_kept_for_predictions_of_their_case_only(tmp_path, case, name, is_kept):
    (tmp_path / "volumes.csv").write_text("\n".join([HEADER, *rows(case), ""]))
    (tmp_path / name).touch()
    collect_volumes(tmp_path)
    assert lines(tmp_path) == [HEADER, *(rows(case) if is_kept else [])]


def test_columns_that_are_not_known_stay_beside_rows_that_did_not_change(tmp_path):
    for case in ("a", "b"):
        record(tmp_path, case, quality=0.9)
    good, bad, none = (f",scan,left,,empty; cut,{comment}" for comment in ("good", "bad", ""))
    before = [f"{HEADER},comment", *rows("a", more=good), *rows("b", more=bad)]
    (tmp_path / "volumes.csv").write_text("\n".join([*before, ""]))
    collect_volumes(tmp_path)
    assert lines(tmp_path) == before
    record(tmp_path, "b", voxels=4)
    collect_volumes(tmp_path)
    assert lines(tmp_path) == [*before[:3], *rows("b", 4, more=none)]


def test_of_two_records_of_a_case_the_newer_counts(tmp_path):
    record(tmp_path, "a", grid="fine", voxels=5)
    time.sleep(0.02)
    record(tmp_path, "a")
    collect_volumes(tmp_path)
    assert lines(tmp_path) == [HEADER, *rows("a")]


def test_a_file_that_is_no_such_table_is_named_and_left_as_it_is(tmp_path):
    record(tmp_path, "a")
    (tmp_path / "volumes.csv").write_text("case;class\na;b\n")
    with pytest.raises(ValueError, match=r"volumes.csv: expected the columns case, class, got case;class: move it"):
        collect_volumes(tmp_path)
    assert (tmp_path / "volumes.csv").read_text() == "case;class\na;b\n" and not list(tmp_path.glob(".*claim"))


def test_a_folder_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"output_dir must be a folder of predictions, .*none does not exist"):
        collect_volumes(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_tables_are_made_one_after_the_other_so_that_the_last_has_read_all_records(tmp_path):
    record(tmp_path, "a")
    claims = Claims()
    assert claims.acquire(tmp_path / ".volumes.csv.claim")
    thread = threading.Thread(target=collect_volumes, args=(tmp_path,))
    thread.start()
    time.sleep(0.2)
    assert not (tmp_path / "volumes.csv").exists()
    record(tmp_path, "b")
    claims.release_all()
    thread.join()
    assert lines(tmp_path) == [HEADER, *rows("a"), *rows("b")]


def test_what_is_written_by_a_case_is_what_the_table_reads(tmp_path):
    for name in ("a.nii.gz", "model.pt"):
        (tmp_path / name).touch()
    records = CaseRecords(str(tmp_path / "out"), "scan", str(tmp_path / "model.pt"))
    volumes = {"anterior": {"voxels": 1, "mm3": 1 / 3, "mm3_fine": None}}
    records.write("a", volumes=volumes, spacing=[1 / 3] * 3, level=1, seconds=2 / 3)
    assert [list(row.values()) for row in collect_volumes(tmp_path / "out")] == [
        ["a", "anterior", 1, "0.3333", "", "0.3333x0.3333x0.3333", 1, "0.6667", "scan", "", "", ""]
    ]
