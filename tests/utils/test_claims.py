import json
import os
import subprocess
import sys
import time

import pytest

from rare_unet_networks.utils import Claims
from rare_unet_networks.utils import claims as module


def left_by(path, **owner):
    """A claim of a process that made it just now and did not give it back."""
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "id": "x", **owner}))
    return path


def dead_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def claim(tmp_path):
    return tmp_path / ".a_seg.claim"


def test_one_of_two_has_a_claim_until_it_gives_it_back(tmp_path):
    claim = tmp_path / "new" / "folder" / ".a_seg.claim"
    first, second = Claims(), Claims()
    assert first.acquire(claim)
    assert not second.acquire(claim) and not first.acquire(claim)
    second.release(claim)  # which is not its own
    assert not second.acquire(claim)
    first.release(claim)
    assert not claim.exists() and second.acquire(claim)
    second.release_all()
    assert list(claim.parent.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="processes of other numbers can be asked for on POSIX only")
def test_a_claim_of_a_process_of_this_machine_that_died_does_not_count(claim):
    host = module.socket.gethostname()
    assert not Claims().acquire(left_by(claim, host=host, pid=os.getppid()))
    assert Claims().acquire(left_by(claim, host=host, pid=dead_process()))
    assert json.loads(claim.read_text())["pid"] == os.getpid()
    assert [p.name for p in claim.parent.iterdir()] == [claim.name]


def test_a_claim_of_this_process_number_that_this_process_did_not_make_does_not_count(claim):
    left_by(claim, host=module.socket.gethostname(), pid=os.getpid())
    assert Claims().acquire(claim)


@pytest.mark.parametrize("text", [None, "", '{"host": "x'])
def test_a_claim_of_another_machine_or_not_written_to_its_end_counts_until_nobody_touched_it_for_a_while(claim, text):
    left_by(claim)
    if text is not None:
        claim.write_text(text)
    assert not Claims(stale_after=60).acquire(claim)
    os.utime(claim, (time.time() - 61,) * 2)
    assert Claims(stale_after=60).acquire(claim)


def test_claims_at_work_are_touched(claim):
    claims = Claims(heartbeat=0.02, stale_after=60)
    assert claims.acquire(claim)
    os.utime(claim, (time.time() - 61,) * 2)
    deadline = time.time() + 10
    while time.time() - claim.stat().st_mtime > 30:
        assert time.time() < deadline
        time.sleep(0.01)
    assert not Claims(stale_after=60).acquire(claim)
    claims.release_all()


def test_a_claim_that_was_taken_over_is_not_given_back_by_the_one_that_lost_it(claim):
    suspended, other = Claims(stale_after=60), Claims(stale_after=60)
    assert suspended.acquire(claim)
    os.utime(claim, (time.time() - 61,) * 2)
    assert other.acquire(claim)
    suspended.release(claim)
    assert claim.exists()
    other.release(claim)
    assert not claim.exists()


def test_of_processes_that_find_a_claim_of_a_dead_one_at_once_one_gets_it(claim, monkeypatch):
    """The other renames what it takes for the dead one's claim, finds the new one, and puts it back."""
    left_by(claim, host=module.socket.gethostname(), pid=dead_process())
    first, second = Claims(), Claims()
    is_stale = second._is_stale

    def first_is_faster(path, owner):
        answer = is_stale(path, owner)
        assert first.acquire(claim)
        return answer

    monkeypatch.setattr(second, "_is_stale", first_is_faster)
    assert not second.acquire(claim)
    assert json.loads(claim.read_text()) == first._owner
    assert [p.name for p in claim.parent.iterdir()] == [claim.name]


def test_claims_are_given_back_when_the_program_ends(claim):
    script = f"""
from pathlib import Path
from rare_unet_networks.utils import Claims
claim = Path({str(claim)!r})
raise SystemExit(3 if Claims().acquire(claim) and claim.exists() else 4)
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == 3
    assert not claim.exists()
