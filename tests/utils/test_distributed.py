import pytest

from rare_unet_networks.utils import distributed

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


def test_a_process_alone_has_everything_to_itself():
    assert (distributed.world_size(), distributed.rank()) == (1, 0)
    assert distributed.all_gather("x") == ["x"] and distributed.broadcast_from_rank0("x") == "x"
