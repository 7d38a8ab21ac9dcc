"""Hundreds of odd, wrong and damaged scans in real runs: each is segmented rightly, warned of, or refused in words.

What fails here is repeated by ``make(seed, number)`` of its line.
"""

import gzip
import os
import re
import resource
import sys
import zlib

import pytest

from . import oracle
from .generator import good, make
from .pipeline import segment

GOOD = 4  # scans without a fault in each run
# Seed and first number of the batches, and how many files each has.
FEW = [(0, start) for start in range(0, 200, 50)]
MANY = [(1, start) for start in range(0, 2000, 50)]
SIZE = 50
# Names of exceptions, addresses, and frames: not the words of a reason.
CODE = re.compile(r"\b\w*(Error|Exception|Warning)\b|0x[0-9a-f]{6}|frame #|Traceback|applying transform|<class")
# Changes of a name, and slopes that ITK takes for 1 because they are small: their intensities are not compared.
INTENSITIES = re.compile(r"named|scl_slope [^']*e-(06|30)")
MEMORY = 1 << 20  # KiB


def write(folder, case):
    with open(os.fsencode(str(folder / case.name)), "wb") as file:
        file.write(case.content)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, small_weights):
    """Bytes of the predictions of the good scans in a run of their own."""
    root = tmp_path_factory.mktemp("alone")
    (root / "scans").mkdir()
    for number in range(GOOD):
        write(root / "scans", good(number))
    outcomes = segment(root / "scans", root / "out", small_weights)
    assert len(outcomes) == GOOD
    return {name: outcome.prediction.read_bytes() for name, outcome in outcomes.items()}


def is_intact(case):
    """Whether the bytes of a compressed file still give what was compressed."""
    try:
        return gzip.decompress(case.content) == case.before
    except (OSError, EOFError, zlib.error):
        return False


def faults_of(case, outcome):
    """What is wrong with the outcome of a case by itself."""
    if outcome.prediction is None and len(outcome.reasons) != 1:
        yield f"neither segmented nor refused once: {outcome.reasons}"
    for reason in outcome.reasons:
        words = re.findall(r"[A-Za-z]{2,}", reason)
        if CODE.search(reason) or len(words) < 3 or "\n" in reason:
            yield f"refused without a reason in words: {reason}"
        if len(outcome.lines) != 1 or "\n" in outcome.lines[0]:
            yield f"refused in {len(outcome.lines)} lines: {outcome.lines}"
    if outcome.prediction is not None and case.is_gzip and "flipped" in str(case.changes) and not is_intact(case):
        yield "segmented although it is damaged"


class Grids:
    """Compares predictions with those of the same scans as SimpleITK reads and rewrites them."""

    def __init__(self, root):
        self.root, self.rewritten = root, {}
        for name in ("links", "plain"):
            (root / name).mkdir()

    def faults_of(self, number, case, outcome):
        """What is wrong with the grid of a prediction that nothing in its record warns of."""
        if outcome.prediction is None or outcome.is_warned:
            return
        # The name of a link says which of its formats a file has; ITK looks for other suffixes of the same name.
        suffix = ".nii.gz" if case.name.lower().endswith(".gz") else ".nii"
        scan = oracle.read(outcome.path, self.root / "links" / f"{number}{suffix}")
        if scan is None:
            yield "not warned of, but SimpleITK cannot read it"
            return
        scan = oracle.as_3d(scan)
        prediction = oracle.as_3d(oracle.read(outcome.prediction, self.root / "links" / f"{number}_seg.nii.gz"))
        shift = oracle.shift(scan, prediction)
        if not shift < 0.01:
            yield f"for SimpleITK the prediction lies {shift:g} voxels off the scan"
        elif scan.GetDimension() == 3 and not INTENSITIES.search(str(case.changes)):
            oracle.write_plain(scan, self.root / "plain" / f"{number}.nii")
            self.rewritten[f"{number}.nii"] = number, outcome

    def disagreements(self, weights):
        """Numbers of the cases whose prediction is another than that of the rewritten scan, and the share that is."""
        for name, other in segment(self.root / "plain", self.root / "plain_out", weights).items():
            number, outcome = self.rewritten[name]
            if other.prediction is None:
                yield number, f"refused as SimpleITK writes it: {other.reasons}"
                continue
            share = oracle.agreement(outcome.prediction, other.prediction)
            if share < 0.99:
                yield number, f"{share:.0%} of its voxels are those of the scan as SimpleITK reads it"


def check(root, weights, alone, seed, start, size):
    scans = root / "scans"
    scans.mkdir()
    cases = {number: make(seed, number) for number in range(start, start + size)}
    for case in [*cases.values(), *map(good, range(GOOD))]:
        write(scans, case)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = segment(scans, root / "out", weights)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    faults = [f"memory grew by {grown >> 10} MiB"] if grown > MEMORY and sys.platform == "linux" else []
    for name, content in alone.items():
        if outcomes[name].prediction is None or outcomes[name].prediction.read_bytes() != content:
            faults.append(f"{name} is not what it is in a run of its own")
    grids = Grids(root)
    for number, case in cases.items():
        outcome = outcomes[case.name]
        for fault in (*faults_of(case, outcome), *grids.faults_of(number, case, outcome)):
            faults.append(f"make({seed}, {number}) {case.changes}: {fault}")
    for number, fault in grids.disagreements(weights):
        faults.append(f"make({seed}, {number}) {cases[number].changes}: {fault}")
    assert not faults, "\n".join(faults)
    segmented = sum(outcome.prediction is not None for outcome in outcomes.values()) - GOOD
    assert size / 4 < segmented < size * 3 / 4  # else the cases are too harmless or too wrong to test much
    assert len(grids.rewritten) > size / 8


@pytest.mark.parametrize("seed, start", FEW)
def test_no_odd_scan_ends_a_run_or_is_segmented_wrongly_without_a_word(tmp_path, small_weights, alone, seed, start):
    check(tmp_path, small_weights, alone, seed, start, SIZE)


@pytest.mark.slow
@pytest.mark.parametrize("seed, start", MANY)
def test_none_of_many_more_either(tmp_path, small_weights, alone, seed, start):
    check(tmp_path, small_weights, alone, seed, start, SIZE)


def test_a_case_is_the_same_whenever_it_is_made():
    assert make(0, 7) == make(0, 7) and make(0, 7).content != make(0, 8).content != make(1, 8).content
