import pytest
import torch

from rare_unet_networks.baselines import NearestDownsampled
from rare_unet_networks.transforms.low_resolution import SimulateLowResolutiond

from ..transforms.test_grids import cube


def test_nearest_downsampled_keeps_the_voxels_of_nearest_labels():
    fine = cube((16, 16, 16))
    label = SimulateLowResolutiond("image", "label", label_mode="nearest")({"image": fine, "label": fine, "level": 2})[
        "label"
    ]
    out = NearestDownsampled("pred", like="label", name="near")({"pred": fine, "label": label})
    assert torch.equal(out["near"].as_tensor(), label.as_tensor())
    assert torch.equal(
        NearestDownsampled("pred", like="label", name="near")({"pred": label, "label": label})["near"], label
    )
    with pytest.raises(ValueError, match="pred must have a multiple of 4×4×4 voxels, got 16×16×15"):
        NearestDownsampled("pred", like="label", name="near")({"pred": fine[..., 1:], "label": label})
