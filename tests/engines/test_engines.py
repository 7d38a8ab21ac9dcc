import pytest
import torch
from monai.data import MetaTensor

from rare_unet_networks.data import collate_patches
from rare_unet_networks.engines.prepare_batch import PreparePyramidBatch

BATCH = {
    f"{key}_{level}": MetaTensor(torch.full((2, 1, 8 >> level, 8, 8), float(level)))
    for key in ("image", "label")
    for level in range(4)
}


def test_a_pyramid_becomes_two_lists_of_plain_tensors():
    images, labels, args, kwargs = PreparePyramidBatch([0, 1, 2, 3])(BATCH, "cpu")
    assert [float(x.mean()) for x in images] == [float(x.mean()) for x in labels] == [0, 1, 2, 3]
    assert args == () and kwargs == {"levels": [0, 1, 2, 3]}
    assert not any(isinstance(x, MetaTensor) for x in images + labels)


def test_without_level_0_its_label_comes_last():
    images, labels, _, kwargs = PreparePyramidBatch([2, 3])(BATCH)
    assert [float(x.mean()) for x in images] == kwargs["levels"] == [2, 3]
    assert [float(x.mean()) for x in labels] == [2, 3, 0]


def test_the_finest_levels_are_left_out_as_often_as_configured():
    prepare, other = (PreparePyramidBatch([0, 1, 2, 3], start_level_probs=[0.5, 0.2, 0.3], seed=1) for _ in range(2))
    starts = [prepare(BATCH)[3]["levels"][0] for _ in range(2000)]
    torch.manual_seed(1)  # another rank: other random numbers, the same levels
    assert [other(BATCH)[3]["levels"][0] for _ in range(100)] == starts[:100]
    assert [starts.count(d) / 2000 for d in range(4)] == pytest.approx([0.5, 0.2, 0.3, 0.0], abs=0.03)


@pytest.mark.parametrize("start_level_probs", [(0.5, 0.4), (0.2,) * 5, (1.5, -0.5)])
def test_probabilities_must_be_some(start_level_probs):
    with pytest.raises(ValueError, match="start_level_probs must be at most 4 probabilities that add up to 1"):
        PreparePyramidBatch([0, 1, 2, 3], start_level_probs)


def test_patches_of_unequal_size_become_one_batch():
    """One scan gave a list of a patch, the other a dictionary; the smaller is padded at its end."""
    small, large = ({"image_0": MetaTensor(torch.ones(1, n, 4, 4))} for n in (4, 8))
    batch = collate_patches([[small], large])["image_0"]
    assert batch.shape == (2, 1, 8, 4, 4)
    assert batch[0, 0, :, 0, 0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]


def pyramid(first, size, value):
    """A patch whose label trains ``first`` and coarser levels; ``size`` voxels of level 0 on each axis."""
    patch = {"label_level": first, "case": "a"}
    for level in range(first, 4):
        for key in ("image", "label"):
            patch[f"{key}_{level}"] = MetaTensor(torch.full((1, *[size >> level] * 3), value))
    return patch


def test_a_batch_of_fine_and_coarse_labels_has_fewer_members_at_fine_levels():
    batch = collate_patches([pyramid(2, 48, 3.0), [pyramid(0, 32, 1.0)], pyramid(1, 32, 2.0)])
    assert sorted(batch) == sorted(f"{key}_{level}" for key in ("image", "label") for level in range(4))
    # The largest extent is 48 voxels of level 0; the finest labels come first.
    assert {level: tuple(batch[f"image_{level}"].shape) for level in range(4)} == {
        0: (1, 1, 48, 48, 48),
        1: (2, 1, 24, 24, 24),
        2: (3, 1, 12, 12, 12),
        3: (3, 1, 6, 6, 6),
    }
    assert [batch["label_3"][i, 0, 0, 0, 0].item() for i in range(3)] == [1.0, 2.0, 3.0]
    assert batch["image_3"][0, 0, :, 0, 0].tolist() == [1, 1, 1, 1, 0, 0]  # padded at the end

    images, labels, _, kwargs = PreparePyramidBatch([0, 1, 2, 3])(batch)
    assert [len(x) for x in images] == [len(x) for x in labels] == [1, 2, 3, 3]
    assert kwargs == {"levels": [0, 1, 2, 3], "num_fine": 1}
    images, labels, _, kwargs = PreparePyramidBatch([0, 1, 2, 3], [0.0, 0.0, 1.0])(batch)
    assert [len(x) for x in labels] == [3, 3, 1] and kwargs == {"levels": [2, 3], "num_fine": 1}


def test_a_batch_of_coarse_labels_has_no_level_0():
    batch = collate_patches([pyramid(1, 32, 1.0), pyramid(1, 48, 2.0)])
    images, labels, _, kwargs = PreparePyramidBatch([0, 1, 2, 3])(batch)
    assert [x.shape[-1] for x in images] == [x.shape[-1] for x in labels] == [24, 12, 6]
    assert kwargs == {"levels": [1, 2, 3], "num_fine": 0}


def test_ranks_run_the_levels_that_all_of_them_have(monkeypatch):
    """Another rank has coarse labels only: level 0 and its label are left out here, too."""
    prepare = PreparePyramidBatch([0, 1, 2, 3])
    monkeypatch.setattr("rare_unet_networks.engines.prepare_batch.all_gather", lambda own: [own, ([1, 2, 3], False)])
    _, labels, _, kwargs = prepare(BATCH)
    assert len(labels) == 3 and kwargs == {"levels": [1, 2, 3], "num_fine": 0}
    monkeypatch.setattr("rare_unet_networks.engines.prepare_batch.all_gather", lambda own: [([0], True), ([1], False)])
    with pytest.raises(ValueError, match=r"must have a level in common, got \[\[0\], \[1\]\]"):
        prepare({"image_0": BATCH["image_0"], "label_0": BATCH["label_0"]})


def test_a_batch_without_a_trained_level_is_named():
    batch = {"image_1": torch.zeros(1, 1, 4, 4, 4), "label_1": torch.zeros(1, 1, 4, 4, 4)}
    with pytest.raises(ValueError, match=r"one of the trained levels \[2, 3\], got \['image_1'\]"):
        PreparePyramidBatch([2, 3])(batch)
