import json
import os

import pytest

from rare_unet_networks.data import CaseRecords, UnclaimedSampler, prediction_path
from rare_unet_networks.data.record_files import claim_path, read_record, volume_rows
from rare_unet_networks.utils import sha256

OPTIONS = {"options": {"side": "auto"}, "config": "1f"}
MEASURED = {
    "spacing": [1.0, 1.0, 4.000001],
    "level": 0,
    "seconds": 0.5,
    "volumes": {"anterior": {"voxels": 3, "mm3": 12.0, "mm3_fine": 11.5}, "posterior": {"voxels": 0, "mm3": 0.0}},
}


class Data:
    """A dataset as far as a sampler looks at it."""

    def __init__(self, data):
        self.data = data


@pytest.fixture
def folder(tmp_path):
    """Scans a, b and c, of which a is done, and weights."""
    for name in ("a.nii.gz", "b.nii.gz", "c.nii.gz", "t2.nii.gz", "model.pt"):
        (tmp_path / name).write_text(f"content of {name}")
    finish(records(tmp_path), item(tmp_path, "a"))
    return tmp_path


def item(folder, case):
    return {"image": str(folder / f"{case}.nii.gz"), "case": case}


def records(folder, grid="scan", options=OPTIONS):
    return CaseRecords(str(folder / "out"), grid, str(folder / "model.pt"), options)


def finish(of_folder, case, **measured):
    """Does a case, as the sampler, the writer and the handler do."""
    assert of_folder.acquire(case)
    of_folder.begin(case["case"])
    of_folder.prediction(case["case"]).touch()
    return of_folder.write(case["case"], **{**MEASURED, **measured})


def left(of_folder, folder, **options):
    return [i["case"] for i in of_folder.pending([item(folder, case) for case in "abc"], **options)]


def test_a_record_says_what_a_prediction_was_made_of_and_gives_the_rows_of_the_table(folder):
    assert sorted(p.name for p in (folder / "out").iterdir()) == ["a_seg.json", "a_seg.nii.gz"]
    record = json.loads((folder / "out" / "a_seg.json").read_text())
    files = {"scan": folder / "a.nii.gz", "weights": folder / "model.pt"}
    digests = {name: {"file": str(path), "sha256": sha256(path)} for name, path in files.items()}
    assert record["scans"] == {"image": digests["scan"]} and record["weights"] == digests["weights"]
    assert (record["case"], record["grid"]) == ("a", "scan")
    assert {key: record[key] for key in (*OPTIONS, *MEASURED)} == {**OPTIONS, **MEASURED}
    common = {
        "case": "a",
        "spacing": "1x1x4",
        "level": 0,
        "seconds": 0.5,
        "grid": "scan",
        "side": "",
        "asymmetry": "",
        "review": "",
    }
    assert volume_rows({**record, "quality": {"not": "known"}}) == [
        {"class": "anterior", "voxels": 3, "mm3": 12.0, "mm3_fine": 11.5, **common},
        {"class": "posterior", "voxels": 0, "mm3": 0.0, "mm3_fine": "", **common},
    ]


def test_a_case_of_the_same_scan_weights_and_options_is_skipped_with_one_line(folder, caplog):
    with caplog.at_level("INFO"):
        assert left(records(folder), folder) == ["b", "c"]
    lines = [r.message for r in caplog.records]
    again = "(--overwrite true does them again)"
    assert lines == [f"1 of 3 are done, with the same scans, weights and options, and are skipped {again}: a"]
    assert left(records(folder), folder, overwrite="False") == ["b", "c"]
    assert left(records(folder), folder, overwrite="true") == ["a", "b", "c"]
    os.rename(folder / "a.nii.gz", folder / "moved.nii.gz")
    assert records(folder).pending([{"image": str(folder / "moved.nii.gz"), "case": "a"}]) == []


@pytest.mark.parametrize("name", ["a.nii.gz", "model.pt"])
def test_a_case_whose_scan_or_weights_have_other_content_is_done_again_whatever_their_dates(folder, name):
    old = (folder / name).stat()
    (folder / name).write_text(f"Content of {name}")
    os.utime(folder / name, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert left(records(folder), folder) == ["a", "b", "c"]


def test_further_models_are_recorded_with_their_digests_and_decide_what_is_done(folder):
    model, absent = folder / "localiser.pt", str(folder / "none.pt")
    model.write_text("hello")
    models = {"localiser": str(model), "trust": None, "other": absent}

    def with_models(changed=models):
        return CaseRecords(str(folder / "out"), "scan", str(folder / "model.pt"), OPTIONS, changed)

    assert "models" not in records(folder).read("a")
    assert left(with_models(), folder) == ["a", "b", "c"]  # a record of an earlier version names none
    finish(with_models(), item(folder, "a"))
    digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"  # of hello
    assert with_models().read("a")["models"] == {"localiser": {"file": str(model), "sha256": digest}}
    assert left(with_models({"localiser": str(model)}), folder) == ["b", "c"]
    model.write_text("other")
    assert left(with_models(), folder) == ["a", "b", "c"]


@pytest.mark.parametrize("name", ["a_seg.nii.gz", "a_seg.json"])
def test_a_case_without_its_prediction_or_record_is_done_again(folder, name):
    (folder / "out" / name).unlink()
    assert left(records(folder), folder) == ["a", "b", "c"]


def test_a_case_of_other_options_or_on_the_other_grid_is_done_again(folder):
    other = {"options": {"side": "right"}, "config": "2f"}
    assert left(records(folder, options=other), folder) == ["a", "b", "c"]
    assert left(records(folder, grid="fine"), folder) == ["a", "b", "c"]
    assert left(records(folder, options=None), folder) == ["a", "b", "c"]  # a program whose options are unknown
    with pytest.raises(ValueError, match="must be one of"):
        records(folder, grid="both")


DAMAGED = {
    "half": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "list": lambda text: "[]",
    "no volumes": lambda text: text.replace('"volumes"', '"volume"'),
    "words for numbers": lambda text: text.replace('"voxels": 3', '"voxels": "three"'),
    "no digest of the scan": lambda text: text.replace('"sha256"', '"md5"', 1),
    "no scans": lambda text: text.replace('"scans"', '"scan"', 1),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_record_means_not_done(folder, damage):
    path = folder / "out" / "a_seg.json"
    path.write_text(DAMAGED[damage](path.read_text()))
    assert left(records(folder), folder) == ["a", "b", "c"]


def test_a_record_with_entries_of_a_later_version_counts(folder):
    path = folder / "out" / "a_seg.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "quality": 0.9}))
    assert left(records(folder), folder) == ["b", "c"]


def test_every_file_of_a_scan_counts_and_one_that_cannot_be_used_is_always_left(folder):
    two = {"image": {"T1w": str(folder / "b.nii.gz"), "T2w": str(folder / "t2.nii.gz")}, "case": "b"}
    record = finish(records(folder), two)
    assert {m: s["sha256"] for m, s in record["scans"].items()} == {m: sha256(p) for m, p in two["image"].items()}
    unusable = {**two, "failure": "twice"}
    assert records(folder).pending([two, unusable]) == [unusable]
    swapped = {**two, "image": dict(zip(("T2w", "T1w"), two["image"].values()))}
    assert records(folder).pending([swapped]) == [swapped]
    (folder / "t2.nii.gz").write_text("another")
    assert records(folder).pending([two]) == [two]


@pytest.mark.parametrize("part, cases", [("1/1", "abcde"), ("1/2", "ace"), ("2/2", "bd"), ("3/3", "c"), ("7/7", "")])
def test_a_part_is_every_nth_scan_from_the_kth_whatever_is_done(folder, part, cases):
    (folder / "out" / "a_seg.json").unlink()
    items = [{"image": f"{case}.nii.gz", "case": case} for case in "abcde"]
    assert "".join(i["case"] for i in records(folder).pending(items, part)) == cases
    finish(records(folder), item(folder, "a"))
    items[0] = item(folder, "a")
    assert "".join(i["case"] for i in records(folder).pending(items, part)) == cases.replace("a", "")


@pytest.mark.parametrize("part", ["0/3", "4/3", "3", "1/0", "-1/3", "a/b", "", "1/3/5", None])
def test_a_part_that_is_none_is_an_error(folder, part):
    with pytest.raises(ValueError, match=r"part must be k/n with k from 1 to n, such as 3/100, got "):
        records(folder).pending([], part)


def test_what_two_processes_do_together_is_done_once(folder):
    items = [item(folder, case) for case in "abc"]
    first, second = records(folder), records(folder)
    ours, theirs = (iter(UnclaimedSampler(Data(r.pending(items)), r)) for r in (first, second))
    assert (next(ours), next(theirs)) == (0, 1)  # b and c
    assert list(ours) == []  # c is at work still, a long done
    second.release()  # the second failed; the first might have tried again
    assert list(UnclaimedSampler(Data(items), first)) == [2]


def test_a_sampler_looks_again_at_its_end_for_what_a_dead_process_left(folder, caplog):
    items = [item(folder, case) for case in "bc"]
    dead, alive = records(folder), records(folder)
    assert dead.acquire(items[0])
    indices = iter(UnclaimedSampler(Data(items), alive))
    assert next(indices) == 1
    dead.release()
    with caplog.at_level("INFO"):
        assert list(indices) == [0]
        assert caplog.text == ""
        assert list(UnclaimedSampler(Data(items), dead)) == []
    assert "2 of 2 were left to other processes that work into the same folder" in caplog.text


def test_all_is_done_again_once_by_two_processes_with_overwrite(folder):
    items = [item(folder, case) for case in "ab"]
    first, second = records(folder), records(folder)
    for r in (first, second):
        assert r.pending(items, overwrite=True) == items
    finish(first, items[0])
    assert list(UnclaimedSampler(Data(items), second)) == [1]


def test_scans_that_cannot_be_used_are_reported_and_both_of_one_case_are(folder):
    items = [{"image": f"x{end}", "case": "x", "failure": "twice"} for end in (".nii", ".nii.gz")]
    assert list(UnclaimedSampler(Data(items), records(folder))) == [0, 1]


def test_a_scan_that_cannot_be_read_is_left_to_the_reader(folder):
    lost = item(folder, "lost")
    one = records(folder)
    assert one.pending([lost]) == [lost] and one.acquire(lost)


def test_without_a_file_of_weights_nothing_counts_as_done(folder):
    (folder / "model.pt").unlink()
    finish(records(folder), item(folder, "b"))
    assert left(records(folder), folder) == ["a", "b", "c"]


def test_weights_that_are_replaced_during_a_run_are_not_what_its_predictions_are_from(folder):
    running = records(folder)
    assert left(running, folder) == ["b", "c"]
    (folder / "model.pt").write_text("another")
    finish(running, item(folder, "b"))
    assert left(records(folder), folder) == ["a", "b", "c"]


def test_names_of_records_and_claims():
    path = prediction_path("a.b", "fine", "out")
    assert path.with_name("a.b_fine_seg.json") == path.parent / "a.b_fine_seg.json"
    assert claim_path(path).name == ".a.b_fine_seg.claim"
    assert read_record(path) is None
