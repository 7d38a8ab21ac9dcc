import math

import pytest
import torch

from rare_unet_networks.utils.geometry import is_near_spacing


@pytest.mark.parametrize(
    "spacing, is_near",
    [
        (2.0, True),
        (2.2, True),
        (1.8, True),
        (float(torch.tensor(2.2)), True),  # 2.2000000477, as of an affine in float32
        (2.21, False),
        (1.79, False),
        (math.nan, False),
    ],
)
def test_a_spacing_is_near_another_up_to_the_tolerance(spacing, is_near):
    assert is_near_spacing(spacing, 2.0, tolerance=0.1) is is_near
