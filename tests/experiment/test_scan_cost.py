"""The table of CPU time and memory in docs/faq.md."""

import sys

import nibabel as nib
import numpy as np
import pytest

from .conftest import SCRIPTS, script


@pytest.fixture
def cost(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return script("scan_cost")


def test_the_rows_replace_those_between_the_marks(cost):
    text = "before\n<!-- table: cost -->\nold\n<!-- /table -->\nafter\n"
    lines = cost.with_table(text, ["| a |", "| b |"]).splitlines()
    assert lines[:2] == ["before", "<!-- table: cost -->"] and lines[-2:] == ["<!-- /table -->", "after"]
    assert lines[2].startswith("| scan | voxels | CPU s") and lines[4:6] == ["| a |", "| b |"] and len(lines) == 8
    with pytest.raises(ValueError, match=r"faq.md must have the marks of one table 'cost', got 0"):
        cost.with_table("nothing", [])


def test_a_row_has_the_least_seconds_the_start_apart_and_the_most_memory(cost, tmp_path, monkeypatch):
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6, 2), np.float32), np.eye(4)), tmp_path / "a.nii.gz")
    # Two runs, two with nothing left to do, and two of another scan of the same task.
    measured = iter([(9.0, 0.5), (8.0, 0.7), (4.0, 0.4), (5.0, 0.3), (6.5, 0.2), (7.0, 0.2)])
    monkeypatch.setattr(cost, "measure", lambda *arguments: next(measured))
    starts = {}
    rows = [cost.row_of("hippocampus", name, tmp_path / "a.nii.gz", tmp_path, 2, starts) for name in "ab"]
    assert rows == ["| a | 4×5×6 | 8.0 | 4.0 | 0.7 |", "| b | 4×5×6 | 6.5 | 2.5 | 0.2 |"]
    assert starts == {"hippocampus": 4.0}


@pytest.mark.parametrize("channels", [(), (3,)])
def test_a_coarser_scan_keeps_its_channels_and_extent(cost, tmp_path, channels):
    data = np.random.default_rng(0).random((8, 8, 8, *channels), dtype=np.float32)
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "fine.nii.gz")
    image = nib.load(cost.coarser(tmp_path / "fine.nii.gz", 2.0, tmp_path / "coarse.nii.gz"))
    assert image.shape == (4, 4, 4, *channels) and image.header.get_zooms()[:3] == (2.0, 2.0, 2.0)


def test_the_cost_of_a_command_is_that_of_its_own_process(cost):
    program = "import time; held = bytearray(b'1') * 200_000_000; start = time.process_time()\n"
    program += "while time.process_time() < start + 0.3: pass"
    seconds, gigabytes = cost.cost_of([sys.executable, "-S", "-c", program])
    assert 0.3 < seconds < 2 and 0.18 < gigabytes < 0.3


def test_a_command_that_fails_is_an_error(cost):
    with pytest.raises(RuntimeError, match=r"-c raise SystemExit\(3\) ended with status 3\.$"):
        cost.cost_of([sys.executable, "-S", "-c", "raise SystemExit(3)"])
