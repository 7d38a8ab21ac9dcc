import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from rare_unet_networks.baselines import FixedLevel, MeanShapeInferer, PadInferer, PredictionsInferer, TestTimeInferer
from rare_unet_networks.inferers import ResolutionRoutingInferer
from rare_unet_networks.levels import ResolutionLevels

LEVELS = ResolutionLevels(num_levels=4, spatial_size=(32, 64, 32), spacing=(1.0, 1.0, 1.0))
ONE = ResolutionLevels(num_levels=1, num_stages=5, spatial_size=(32, 64, 32), spacing=(1.0, 1.0, 1.0))


def scan(size, spacing=1.0, name="scan.nii.gz"):
    affine = torch.diag(torch.tensor([spacing, spacing, spacing, 1.0]))
    return MetaTensor(torch.rand(1, 1, *size), affine=affine, meta={"filename_or_obj": name})


def save(path, array, spacing=1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(array, dtype=np.uint8), np.diag([spacing, spacing, spacing, 1.0])), path)


def test_mean_shape_predicts_at_1_mm_without_looking_at_the_image(tmp_path):
    for name, width in (("a", 4), ("b", 8)):
        label = np.zeros((16, 16, 16), np.uint8)
        half = width // 2
        label[8 - half : 8 + half, 4:12, 4:12] = 1
        save(tmp_path / f"{name}.nii.gz", label)
    data = [{"label": tmp_path / "a.nii.gz"}, {"label": tmp_path / "b.nii.gz"}]
    inferer = MeanShapeInferer(LEVELS, data, num_classes=2, spatial_size=(32, 32, 32))
    expected = [0] * 4 + [0.5] * 2 + [1] * 4 + [0.5] * 2 + [0] * 4
    for image in (scan((16, 16, 16)), scan((8, 8, 8), 2.0), scan((2, 2, 2), 8.0)):
        out = inferer(image).softmax(dim=1)
        assert out.shape == (1, 2, 16, 16, 16) and out.pixdim.tolist() == [1, 1, 1]
        assert out[0, 1, :, 8, 8].tolist() == pytest.approx(expected, abs=1e-4)

    with pytest.raises(ValueError, match="spatial_size must be at least the scan's 40×40×40, got 32×32×32"):
        inferer(scan((40, 40, 40)))


@pytest.mark.parametrize(
    "size, padded_size",
    [
        ((9, 13, 9), (32, 64, 32)),
        ((35, 51, 33), (48, 64, 48)),  # larger than the full size: what the network can take
    ],
)
def test_padded_scan_lies_in_the_middle_and_the_prediction_on_its_grid(size, padded_size):
    image, calls = scan(size), []

    def net(x):
        calls.append(x)
        return x

    out = PadInferer(ONE)(image, net)
    assert calls[0].shape[2:] == padded_size and float(calls[0].sum()) == pytest.approx(float(image.sum()), rel=1e-5)
    assert torch.equal(out.as_tensor(), image.as_tensor()) and torch.equal(out.affine, image.affine)


def test_pad_needs_a_size_to_pad_to():
    with pytest.raises(ValueError, match="levels must have a spatial_size"):
        PadInferer(ResolutionLevels(num_levels=1, spacing=(1.0, 1.0, 1.0)))


@pytest.mark.parametrize("size, spacing", [((4, 5, 6), 4.0), ((16, 20, 24), 1.0)])
def test_predictions_of_either_grid_are_taken_from_their_scales_folder(tmp_path, size, spacing):
    labels = torch.randint(0, 3, size)
    save(tmp_path / "0.25" / "case.nii.gz", labels, spacing)
    inferer = PredictionsInferer(LEVELS, tmp_path, num_classes=3)
    out = inferer(scan((4, 5, 6), 4.0, "/there/case.nii.gz"))
    assert out.shape == (1, 3, *size) and torch.equal(out.argmax(dim=1)[0], labels)
    with pytest.raises(ValueError, match=r"there is no prediction .*0.5/case.nii.gz"):
        inferer(scan((8, 8, 8), 2.0, "/there/case.nii.gz"))


def test_a_prediction_of_another_size_is_placed_by_its_affine(tmp_path):
    labels = np.zeros((10, 10, 10), np.uint8)
    labels[2, 3, 4] = 1
    save(tmp_path / "0.25" / "case.nii.gz", labels)
    out = PredictionsInferer(LEVELS, tmp_path, num_classes=2)(scan((4, 5, 6), 4.0, "case.nii.gz"))
    # The fine grid starts 1.5 mm before the centre of the coarse grid's first voxel; 2 mm is nearest to voxel 3 or 4.
    assert out.shape == (1, 2, 16, 20, 24)
    found = out.argmax(dim=1)[0].nonzero()
    assert len(found) == 1 and (found[0] - torch.tensor([3.5, 4.5, 5.5])).abs().max() == 0.5


def test_strange_labels_in_a_prediction_are_refused(tmp_path):
    save(tmp_path / "1" / "case.nii.gz", np.full((4, 5, 6), 3))
    with pytest.raises(ValueError, match=r"case.nii.gz must hold 0 to 2 only, got .3.0"):
        PredictionsInferer(LEVELS, tmp_path, num_classes=3)(scan((4, 5, 6), 1.0, "case.nii.gz"))


def test_a_fixed_level_takes_every_spacing():
    levels = FixedLevel(level=2, num_levels=4, spacing=(1.0, 1.0, 1.0))
    assert [levels.level_of_spacing((s,) * 3) for s in (0.7, 1.0, 8.0)] == [2, 2, 2]
    with pytest.raises(ValueError, match="level must be 0 to 3, got 4"):
        FixedLevel(level=4, num_levels=4, spacing=(1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="finite and above 0"):
        levels.level_of_spacing((1.0, 0.0, 1.0))


@pytest.mark.parametrize("output", ["scan", "fine"])
@pytest.mark.parametrize("flips, shifts", [([[0], [1, 2]], []), ([], [[1, 0, 2], [0, 3, 0]])])
def test_copies_are_brought_back_to_the_voxels_of_the_scan(flips, shifts, output):
    sums = []

    def net(x, level, output="scan"):  # decides voxel by voxel, so that each copy agrees with the scan
        sums.append((tuple(x.shape[2:]), float((x * torch.arange(x.shape[2])[:, None, None]).sum())))
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4) if output == "fine" else x
        return torch.cat([-x, x], dim=1)

    image, inferer = scan((8, 12, 10), 2.0), ResolutionRoutingInferer(LEVELS, output=output)
    expected = inferer(image, net).softmax(dim=1)
    sums.clear()
    found = TestTimeInferer(inferer, flips, shifts)(image, net).softmax(dim=1)
    assert torch.allclose(found.as_tensor(), expected.as_tensor(), atol=1e-6) and found.shape == expected.shape
    assert len(sums) == 3 and len(set(sums[:2])) == 2  # the network did see copies


def test_probabilities_of_copies_are_averaged():
    def net(x, level):  # 3 to 1 for the class in the first half of the axis, 1 to 3 in the second, whatever x is
        logits = torch.zeros(1, 2, *x.shape[2:])
        logits[:, 1, :16], logits[:, 1, 16:] = float(np.log(3)), -float(np.log(3))
        return logits

    image, inferer = scan((32, 64, 32)), ResolutionRoutingInferer(LEVELS)
    assert TestTimeInferer(inferer)(image, net).softmax(dim=1)[0, 1, :, 8, 8].tolist() == pytest.approx(
        [0.75] * 16 + [0.25] * 16
    )
    found = TestTimeInferer(inferer, flips=[[0]])(image, net).softmax(dim=1)
    assert found[0, 1].flatten().tolist() == pytest.approx([0.5] * 32 * 64 * 32)
