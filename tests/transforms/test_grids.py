import nibabel as nib
import pytest
import torch
from monai.data import MetaTensor
from monai.networks.utils import one_hot
from monai.transforms import Compose, Invertd, Orientationd, ResampleToMatch

from rare_unet_networks.inferers import note_route
from rare_unet_networks.levels import ResolutionLevels
from rare_unet_networks.transforms.grids import ResampleToBothGridsd, prediction_key
from rare_unet_networks.transforms.low_resolution import SimulateLowResolutiond

LEVELS = ResolutionLevels(num_levels=4, spatial_size=(32, 64, 32), spacing=(1.0, 1.0, 1.0))
AFFINE = torch.tensor([[1.0, 0, 0, 10], [0, 1, 0, 20], [0, 0, 1, 30], [0, 0, 0, 1]], dtype=torch.float64)


def cube(size=(27, 31, 29)):
    """Odd sizes, so that padding to a multiple of 8 is not symmetric by itself."""
    mask = torch.zeros(1, *size)
    mask[:, 8:16, 8:16, 8:16] = 1
    return MetaTensor(mask, affine=AFFINE, meta={"original_affine": AFFINE})


def routed(pred, image, levels=LEVELS):
    """Predictions as an inferer returns them, with the route of the scan."""
    if isinstance(pred, dict):
        return {key: routed(value, image, levels) for key, value in pred.items()}
    return note_route(MetaTensor(pred), levels.route(image[None]), ["right"])


def both(pred, image, softmax=False, **kwargs):
    out = ResampleToBothGridsd("pred", softmax=softmax, **kwargs)({"pred": routed(pred, image), "image": image})
    return out["pred"], out["pred_fine"]


def test_a_native_prediction_resampled_to_the_fine_grid_keeps_its_place_and_volume():
    mask = cube()
    coarse = SimulateLowResolutiond("image")({"image": mask, "level": 1})["image"]
    native, full = both(torch.cat([1 - coarse.as_tensor(), coarse.as_tensor()]), coarse)
    assert native.shape[1:] == coarse.shape[1:] and full.shape[1:] == (32, 32, 32)
    assert torch.equal(native.affine, coarse.affine)
    # 2 voxels of padding before on the first axis, 0 on the second, 1 on the third.
    assert full.affine[:3, 3].tolist() == [10 - 2, 20, 30 - 1]
    on_scan = ResampleToMatch(mode="nearest")(full, mask)
    assert on_scan.shape[1:] == mask.shape[1:]
    weights = on_scan[1].as_tensor().double()
    axes = torch.stack(torch.meshgrid(*(torch.arange(n) for n in weights.shape), indexing="ij")).double()
    assert ((axes * weights).flatten(1).sum(dim=1) / weights.sum()).tolist() == pytest.approx([11.5] * 3, abs=1e-4)
    assert float(weights.sum()) == pytest.approx(512, rel=1e-4)


def test_repeated_it_is_the_coarse_voxel_again():
    coarse = SimulateLowResolutiond("image")({"image": cube(), "level": 2})["image"]
    _, full = both(one_hot(coarse.as_tensor().round(), 2, dim=0), coarse, upsample_mode="repeat")
    expected = coarse.as_tensor().round()[0]
    for axis in range(3):
        expected = expected.repeat_interleave(4, dim=axis)
    assert torch.equal(full[1].as_tensor(), expected)


def test_a_scan_placed_by_its_size_has_its_full_prediction_on_the_finer_grid_of_that_level():
    by_size = ResolutionLevels(num_levels=4, spatial_size=(32, 64, 32), spacing=(1.0, 1.0, 1.0), routing="size")
    image = MetaTensor(torch.rand(1, 16, 32, 16), affine=AFFINE)  # 1 mm, but the size of level 1
    out = ResampleToBothGridsd("pred", softmax=False)(
        {"pred": routed(torch.rand(2, 32, 64, 32), image, by_size), "image": image}
    )
    assert out["pred"].shape == (2, 16, 32, 16) and out["pred_fine"].shape == (2, 32, 64, 32)
    assert out["pred_fine"].pixdim.tolist() == [0.5, 0.5, 0.5]


def test_a_full_prediction_is_averaged_to_the_native_grid():
    image = SimulateLowResolutiond("image")({"image": cube((16, 16, 16)), "level": 1})["image"]
    pred = torch.zeros(2, 16, 16, 16)
    pred[1, 0, 0, 0], pred[1, 2, 2, 2:4] = 1.0, 0.5
    native, full = both(pred, image)
    assert torch.equal(full.as_tensor(), pred)
    assert float(native[1, 0, 0, 0]) == 1 / 8 and float(native[1, 1, 1, 1]) == 1 / 8
    assert float(native[1].sum()) == pytest.approx(pred[1].sum() / 8)


def test_between_levels_the_native_prediction_stays_in_place():
    # 1.5 mm: 36 fine voxels for 24 coarse ones. A ramp over the fine ones is a ramp over the coarse ones.
    image = MetaTensor(torch.rand(1, 24, 24, 24), affine=torch.diag(torch.tensor([1.5, 1.5, 1.5, 1])))
    ramp = ((torch.arange(36.0) + 0.5) / 36).reshape(1, 36, 1, 1).expand(1, 36, 36, 36)
    native, _ = both(torch.cat([1 - ramp, ramp]), image)
    expected = (torch.arange(24.0) + 0.5) / 24
    torch.testing.assert_close(native[1, 2:-2, 12, 12].as_tensor(), expected[2:-2], atol=1e-3, rtol=0)


def test_a_thick_slice_scan_has_its_full_prediction_at_level_0_with_the_right_affine():
    image = MetaTensor(torch.rand(1, 8, 8, 2), affine=torch.diag(torch.tensor([1.0, 1, 4, 1])))
    native, full = both(torch.rand(2, 8, 8, 8), image)
    assert native.shape == (2, 8, 8, 2) and full.shape == (2, 8, 8, 8)
    # Slice 0 reaches from -2 to 2 mm: the first fine voxel's centre lies at -1.5 mm.
    assert full.affine[:3, 3].tolist() == [0, 0, -1.5] and full.pixdim.tolist() == [1, 1, 1]
    torch.testing.assert_close(native[..., 0].as_tensor(), full[..., :4].mean(dim=-1).as_tensor())


def test_route_and_side_stay_with_both_predictions_and_through_the_inverse_of_preprocessing():
    prepare = Compose([Orientationd("image", "RAS", labels=None)])
    scan = MetaTensor(torch.rand(1, 4, 5, 6), affine=torch.diag(torch.tensor([-2.0, 2, 2, 1])))
    image = prepare({"image": scan})["image"]
    data = {"pred": routed(torch.rand(2, 4, 5, 6), image), "image": image}
    data = ResampleToBothGridsd("pred")(data)
    data = Invertd("pred", prepare, "image", nearest_interp=False)(data)
    for key in ("pred", "pred_fine"):
        assert data[key].meta["route"] == LEVELS.route(image[None]) and data[key].meta["side"] == "right"
    assert data["pred"].affine[0, 0] == -2 and "route" not in image.meta


def test_full_prediction_has_the_axis_order_of_the_file():
    original = torch.tensor([[0, 0, 2.0, 5], [-2, 0, 0, 6], [0, 2, 0, 7], [0, 0, 0, 1]])
    image = MetaTensor(torch.rand(1, 4, 5, 6), affine=torch.diag(torch.tensor([2.0, 2, 2, 1])))
    image.meta["original_affine"] = original
    _, full = both(torch.rand(2, 8, 10, 12), image)
    assert nib.aff2axcodes(full.affine) == nib.aff2axcodes(original)
    assert full.shape == (2, 10, 12, 8)


def test_both_predictions_of_an_inferer_are_used_unchanged():
    image = MetaTensor(torch.rand(1, 4, 4, 4), affine=torch.diag(torch.tensor([2.0, 2, 2, 1])))
    given = {"pred": torch.rand(3, 4, 4, 4), "pred_fine": torch.rand(3, 8, 8, 8)}
    native, full = both(dict(given), image, softmax=True)
    torch.testing.assert_close(native.as_tensor(), given["pred"].softmax(dim=0))
    torch.testing.assert_close(full.as_tensor(), given["pred_fine"].softmax(dim=0))
    out = ResampleToBothGridsd("seg")({"seg": routed(given, image), "image": image})
    assert out["seg"].shape == (3, 4, 4, 4) and out["seg_fine"].shape == (3, 8, 8, 8)
    # The full one alone: the native one is its mean, of probabilities, not of logits.
    native, _ = both({"pred_fine": given["pred_fine"]}, image, softmax=True)
    expected = torch.nn.functional.avg_pool3d(given["pred_fine"].softmax(dim=0), 2)
    torch.testing.assert_close(native.as_tensor(), expected)


def test_ill_predictions_and_names_are_refused():
    with pytest.raises(ValueError, match=r"pred must have 4×4×4 voxels .scan. or 8×8×8 .fine., got 5×4×4"):
        both(
            torch.rand(2, 5, 4, 4), MetaTensor(torch.rand(1, 4, 4, 4), affine=torch.diag(torch.tensor([2.0, 2, 2, 1])))
        )
    with pytest.raises(ValueError, match="upsample_mode must be 'linear' or 'repeat', got 'cubic'"):
        ResampleToBothGridsd("pred", upsample_mode="cubic")
    with pytest.raises(ValueError, match=r"grid must be one of .'scan', 'fine'., got 'full'"):
        prediction_key("full")
    with pytest.raises(ValueError, match="pred must carry the inferer's route in its metadata, got none"):
        ResampleToBothGridsd("pred")({"pred": torch.rand(2, 4, 4, 4), "image": MetaTensor(torch.rand(1, 4, 4, 4))})
    assert (prediction_key("scan"), prediction_key("fine")) == ("pred", "pred_fine")
