import torch
from monai.data import MetaTensor

from rare_unet_networks.transforms import RandModalityAcquisitionsd, RandSimulateAcquisitiond


def acquire(spacing=4.0):
    """Slices of ``spacing`` mm along a random axis, without blur beyond it, gap, noise or other thickness."""
    return RandSimulateAcquisitiond(
        "image", in_plane=(1, 1), slices=(spacing, spacing), anisotropic_prob=1, box_prob=1, gap_prob=0, noise=(0, 0)
    )


def ramp():
    """Four channels that rise by 1 a voxel along the first axis; no scan with thick slices changes them inside."""
    x = torch.arange(32.0).reshape(1, 32, 1, 1).expand(4, 32, 32, 32).clone()
    return {"image": MetaTensor(x, affine=torch.diag(torch.tensor([1.0, 1, 1, 1])))}


def test_a_linear_scan_stays_where_it_is_on_its_own_grid():
    """Means of slices and linear interpolation keep a ramp, so a shifted grid would show."""
    given = ramp()["image"]
    seen = RandModalityAcquisitionsd("image", acquire(), prob=1, channel_prob=1).set_random_state(0)(ramp())["image"]
    assert seen.shape == given.shape and torch.equal(seen.affine, given.affine)
    torch.testing.assert_close(seen[:, 6:-6].as_tensor(), given[:, 6:-6].as_tensor())


def test_channels_have_acquisitions_of_their_own():
    torch.manual_seed(0)
    noise = {"image": MetaTensor(torch.rand(1, 24, 24, 24).repeat(4, 1, 1, 1))}
    seen = RandModalityAcquisitionsd("image", acquire(), prob=1, channel_prob=1).set_random_state(0)(noise)["image"]
    assert len({round(float(channel.std()), 6) for channel in seen}) == 4
    assert all(channel.std() < noise["image"][0].std() for channel in seen)


def test_by_chance_nothing_changes():
    for options in (dict(prob=0), dict(prob=1, channel_prob=0)):
        seen = RandModalityAcquisitionsd("image", acquire(), **options)(ramp())["image"]
        assert torch.equal(seen.as_tensor(), ramp()["image"].as_tensor())
