import pytest
import torch
from monai.data import MetaTensor

from rare_unet_networks.baselines import RandResolutionLeveld, RestoreResolutiond, coarsened_labels
from rare_unet_networks.transforms.low_resolution import SimulateLowResolutiond


def test_levels_are_drawn_as_often_as_the_paper_says():
    transform = RandResolutionLeveld(levels=(1, 2, 3), prob=0.5)
    transform.set_random_state(0)
    drawn = [transform({})["level"] for _ in range(3000)]
    shares = [drawn.count(level) / 3000 for level in range(4)]
    assert shares == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6], abs=0.03)


@pytest.mark.parametrize("level", [1, 2])
def test_fine_again_puts_a_coarsened_case_back_in_place(level):
    mask = torch.zeros(1, 27, 31, 29)
    mask[:, 6:14, 8:16, 7:15] = 1  # on the blocks of the padded case: 2, 0 and 1 voxels of padding before
    data = {"image": MetaTensor(mask), "label": MetaTensor(mask), "full": MetaTensor(mask), "level": level}
    coarse = SimulateLowResolutiond("image", "label")(data)
    out = RestoreResolutiond("image", "label", like="full")(coarse)
    assert out["image"].shape == out["label"].shape == mask.shape
    for key in ("image", "label"):
        weights = out[key][0].as_tensor().double()
        axes = torch.stack(torch.meshgrid(*(torch.arange(n) for n in weights.shape), indexing="ij")).double()
        centre = (axes * weights).flatten(1).sum(dim=1) / weights.sum()
        assert centre.tolist() == pytest.approx([9.5, 11.5, 10.5], abs=1e-4)
    assert set(out["label"].unique().tolist()) == {0, 1}


def test_padded_again_it_keeps_its_voxels_and_moves_to_the_middle():
    mask = torch.ones(1, 16, 16, 16)
    coarse = SimulateLowResolutiond("image", "label")(
        {k: MetaTensor(mask) for k in ("image", "label", "full")} | {"level": 1}
    )
    out = RestoreResolutiond("image", "label", like="full", how="pad")(coarse)
    expected = torch.zeros(1, 16, 16, 16)
    expected[:, 4:12, 4:12, 4:12] = 1
    assert torch.equal(out["image"].as_tensor(), expected) and torch.equal(out["label"].as_tensor(), expected)
    untouched = RestoreResolutiond("image", "label", like="full")({**coarse, "image": mask, "label": mask})
    assert torch.equal(untouched["image"], mask)
    with pytest.raises(ValueError, match="how must be 'up' or 'pad'"):
        RestoreResolutiond("image", "label", like="full", how="down")


def test_labels_are_coarsened_or_not_and_nothing_else():
    assert coarsened_labels("coarse", "up") == coarsened_labels("coarse", "pad") == ["label"]
    assert coarsened_labels("full", "up") == []
    with pytest.raises(ValueError, match="augment_labels must be 'coarse' or 'full', got 'Full'"):
        coarsened_labels("Full", "up")
    with pytest.raises(ValueError, match="augment_labels must be 'coarse' where augment_back is 'pad'"):
        coarsened_labels("full", "pad")
