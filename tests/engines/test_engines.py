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
