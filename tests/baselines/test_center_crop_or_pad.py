import pytest
import torch
from monai.data import MetaTensor

from rare_unet_networks.baselines import CenterCropOrPadd

AFFINE = torch.tensor([[1.0, 0, 0, 10], [0, 1, 0, 20], [0, 0, 1, 30], [0, 0, 0, 1]], dtype=torch.float64)


@pytest.mark.parametrize(
    "voxels, start, end",
    [
        (30, [0, 1, 2], [29, 30, 0]),  # two to add: one before, one after
        (31, [0, 1, 2], [29, 30, 31]),  # one to add: before
        (32, [1, 2, 3], [30, 31, 32]),
        (33, [2, 3, 4], [31, 32, 33]),  # one to cut: before
        (35, [3, 4, 5], [32, 33, 34]),  # three to cut: two before
    ],
)
def test_crop_or_pad_puts_the_odd_voxel_first_and_keeps_the_affine_right(voxels, start, end):
    image = MetaTensor(torch.arange(1.0, voxels + 1).reshape(1, voxels, 1, 1), affine=AFFINE)
    out = CenterCropOrPadd("image", (32, 1, 1))({"image": image})["image"]
    assert out.shape == (1, 32, 1, 1)
    values = out.flatten().tolist()
    assert (values[:3], values[-3:]) == (start, end)
    # Voxel i of the scan, whose value is i + 1, lies at 10 + i mm.
    assert float(out.affine[0, 3]) + values.index(5.0) == 10 + 4
