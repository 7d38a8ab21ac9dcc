import json
import os
import sys
import time

import pytest

from rare_unet_networks.handlers.reports import VolumeSaver
from rare_unet_networks.handlers.resuming import RECORD, CommandRecord, unfinished

MODULE = "/site-packages/monai/bundle/__main__.py"
LATER, LATER_STILL = 1000, 2000  # seconds from now: ctime cannot be set, so what is younger lies in the future


def age(path, seconds):
    when = time.time() + seconds
    os.utime(path, (when, when))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Scans a and b, of which a has been answered by the command that this process now is."""
    for name in ("a.nii.gz", "b.nii.gz", "model.pt", "inference.json"):
        (tmp_path / name).write_text("{}")
    output = tmp_path / "out"
    monkeypatch.chdir(tmp_path)
    command(monkeypatch)
    CommandRecord(str(output)).started()
    for name in ("a_seg.nii.gz", "a_fine_seg.nii.gz"):
        (output / name).touch()
        age(output / name, LATER)
    rows = [",".join(VolumeSaver.columns), "a,anterior,1,1,1,1x1x1,0,1", "a,posterior,1,1,1,1x1x1,0,1", ""]
    (output / "volumes.csv").write_text("\n".join(rows))
    return tmp_path


def command(monkeypatch, *options):
    argv = [MODULE, "run", "inferring", "--config_file", "inference.json", "--side", "auto", *options]
    monkeypatch.setattr(sys, "argv", argv)


def left(folder, grid="scan", **options):
    items = [{"image": str(folder / f"{case}.nii.gz"), "case": case} for case in "ab"]
    return [i["case"] for i in unfinished(items, str(folder / "out"), grid, str(folder / "model.pt"), **options)]


def test_the_same_command_leaves_out_what_it_has_answered_and_says_so(folder, monkeypatch, caplog):
    with caplog.at_level("INFO"):
        assert left(folder) == ["b"]
    message = "1 of 2 were answered by this command before and are left out (--overwrite true does them again): a"
    assert message in caplog.text
    assert left(folder, grid="fine") == ["b"]
    assert left(folder, overwrite="true") == ["a", "b"]
    command(monkeypatch, "--overwrite", "false")
    assert left(folder) == ["b"]
    written = (folder / "out" / RECORD).stat().st_mtime_ns
    CommandRecord(str(folder / "out")).started()
    assert (folder / "out" / RECORD).stat().st_mtime_ns == written


@pytest.mark.parametrize("name", ["a.nii.gz", "model.pt", "inference.json", f"out/{RECORD}"])
def test_an_answer_older_than_what_it_was_made_of_does_not_count(folder, name):
    age(folder / name, LATER_STILL)
    assert left(folder) == ["a", "b"]


@pytest.mark.parametrize("name", ["a_seg.nii.gz", "volumes.csv", RECORD])
def test_an_answer_without_its_file_its_rows_or_its_command_does_not_count(folder, name):
    (folder / "out" / name).unlink()
    assert left(folder) == ["a", "b"]


def test_an_answer_of_another_command_does_not_count_even_when_that_was_cut_short(folder, monkeypatch):
    command(monkeypatch, "--amp", "True")
    assert left(folder) == ["a", "b"]
    CommandRecord(str(folder / "out")).started()  # cut short before its first answer
    age(folder / "out" / RECORD, LATER_STILL)
    assert left(folder) == ["a", "b"]
    command(monkeypatch)
    assert left(folder) == ["a", "b"]


def test_an_answer_of_the_same_words_in_another_folder_does_not_count(folder, monkeypatch):
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "inference.json").write_text("{}")
    monkeypatch.chdir(folder / "elsewhere")
    assert left(folder) == ["a", "b"]


def test_a_program_that_drives_the_config_itself_does_everything_and_leaves_no_record(folder, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["program.py"])
    assert left(folder) == ["a", "b"]
    CommandRecord(str(folder / "out")).started()
    assert not (folder / "out" / RECORD).exists()


def test_a_record_that_was_cut_short_is_none(folder):
    (folder / "out" / RECORD).write_text(json.dumps({"folder": ""})[:-2])
    assert left(folder) == ["a", "b"]


def test_all_files_of_a_scan_count_and_one_that_cannot_be_used_is_always_left(folder):
    items = [
        {"image": {"T1w": str(folder / "a.nii.gz"), "T2w": str(folder / "b.nii.gz")}, "case": "a"},
        {"image": str(folder / "a.nii.gz"), "case": "a", "failure": "twice"},
    ]
    arguments = (str(folder / "out"), "scan", str(folder / "model.pt"))
    assert unfinished(items, *arguments) == items[1:]
    age(folder / "b.nii.gz", LATER_STILL)
    assert unfinished(items, *arguments) == items


@pytest.mark.parametrize(
    "options, match",
    [(dict(grid="full"), "grid must be one of"), (dict(overwrite="perhaps"), "expected true or false")],
)
def test_ill_options_are_errors(folder, options, match):
    with pytest.raises(ValueError, match=match):
        left(folder, **options)
