import multiprocessing
import sys

import pytest

from rare_unet_networks.utils import distributed
from rare_unet_networks.utils.tables import CaseTable, rows_there

# items, processes, part of each
CASES = [
    (5, 2, [[0, 2, 4], [1, 3]]),
    (2, 2, [[0], [1]]),
    (1, 3, [[0], [], []]),  # MONAI's sampler refuses fewer items than processes
    (0, 2, [[], []]),
    (3, 1, [[0, 1, 2]]),
]


@pytest.mark.parametrize("items, size, parts", CASES)
def test_every_item_is_in_one_part(monkeypatch, items, size, parts):
    monkeypatch.setattr(distributed, "world_size", lambda: size)
    for rank, part in enumerate(parts):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        assert list(distributed.distributed_sampler(range(items))) == part


def test_a_process_alone_has_everything_to_itself(tmp_path):
    assert (distributed.world_size(), distributed.rank()) == (1, 0)
    assert distributed.all_gather("x") == ["x"] and distributed.broadcast_from_rank0("x") == "x"
    with distributed.file_lock(tmp_path / "volumes.csv"):
        assert list(tmp_path.iterdir()) == []  # no lock is left where none is needed


def write_rows(path, name):
    distributed.world_size = lambda: 4
    file = CaseTable(path, ("case", "value"), keep=True)
    for i in range(25):
        file.replace([f"{name}{i}"], [{"case": f"{name}{i}", "value": i}] * 2)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX locks")
def test_rows_that_several_processes_write_at_once_are_all_kept(tmp_path):
    path = tmp_path / "volumes.csv"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_rows, args=(path, name)) for name in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    rows = [(row["case"], row["value"]) for row in rows_there(path, ("case", "value"))]
    assert sorted(rows) == sorted([(f"{name}{i}", str(i)) for name in "abcd" for i in range(25)] * 2)
