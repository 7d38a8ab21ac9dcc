import logging
import math

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from rare_unet_networks.transforms.checks import CheckLabeld, CheckScand

GOOD = np.random.default_rng(0).random((1, 8, 8, 8), dtype=np.float32)
ILL_SCANS = [
    (MetaTensor(torch.rand(2, 8, 8, 8)), r"expected 1 channel\(s\), got 2"),
    (MetaTensor(torch.rand(1, 8, 8)), "expected 3 spatial axes, got a scan of shape 8×8"),
    (MetaTensor(torch.full((1, 8, 8, 8), float("nan"))), "NaN or infinite"),
    (MetaTensor(torch.full((1, 8, 8, 8), 7.0)), "no contrast .its 0.5 and 99.5 percentiles are both 7"),
    (MetaTensor(torch.eye(512)[:1].reshape(1, 8, 8, 8)), "no contrast"),  # one bright voxel
    (MetaTensor(torch.tensor(GOOD), affine=torch.diag(torch.tensor([1.0, 0.0, 1.0, 1.0]))), "1×0×1"),
    (MetaTensor(torch.tensor(GOOD), affine=torch.full((4, 4), float("nan"))), "nan×nan×nan"),
]


@pytest.mark.parametrize("scan, match", ILL_SCANS)
def test_scans_that_cannot_be_segmented_are_refused_with_the_reason(scan, match):
    with pytest.raises(ValueError, match=match):
        CheckScand("image")({"image": scan})


@pytest.mark.parametrize("sform, qform, warned", [(0, 0, True), (1, 0, False), (0, 4, False)])
def test_a_file_that_does_not_say_its_orientation_is_warned_of(caplog, sform, qform, warned):
    scan = MetaTensor(torch.tensor(GOOD), meta={"sform_code": sform, "qform_code": qform})
    with caplog.at_level(logging.WARNING):
        CheckScand("image")({"image": scan})
    assert ("left and right may be swapped" in caplog.text) == warned


def test_a_field_of_view_far_from_the_training_crops_is_warned_of(caplog):
    scan = MetaTensor(torch.tensor(GOOD), affine=torch.diag(torch.tensor([20.0, 1.0, 1.0, 1.0])))
    with caplog.at_level(logging.WARNING):
        CheckScand("image", max_extent=80)({"image": scan})
    assert "field of view 160×8×8 mm" in caplog.text


@pytest.mark.parametrize("angle, warned", [(0, False), (19, False), (21, True), (44, True), (69, True), (71, False)])
@pytest.mark.parametrize("axis", range(3))
def test_an_oblique_scan_is_warned_of_and_the_warning_noted(caplog, angle, warned, axis):
    """Turned by 71 degrees, the axes are 19 degrees away from other axes of the body."""
    angles = [0.0, 0.0, 0.0]
    angles[axis] = math.radians(angle)
    affine = nib.affines.from_matvec(nib.eulerangles.euler2mat(*angles) @ np.diag([-1, 2, 1.5]), [5, 6, 7])
    scan = MetaTensor(torch.tensor(GOOD), affine=torch.as_tensor(affine))
    with caplog.at_level(logging.WARNING):
        CheckScand("image")({"image": scan})
        CheckScand("image")({"image": scan})
    text = f"its axes are turned by {min(angle, 90 - angle)} degrees from those of the body"
    assert (text in caplog.text) == warned == (text in scan.meta.get("warnings", ""))
    assert scan.meta.get("warnings", "").count("turned") == warned


@pytest.mark.parametrize("background, warned", [(0.0, ""), (-1.0, "1.0 l of the scan are not 0")])
def test_a_background_that_is_not_0_is_warned_of(caplog, background, warned):
    """A litre of 8×8×8 voxels, of which a fifth is a brain: 0.2 l, the limit 0.5."""
    scan = torch.full((1, 8, 8, 8), background)
    scan.view(-1)[:102] = torch.linspace(50, 100, 102)
    step = (1e6 / 512) ** (1 / 3)
    with caplog.at_level(logging.WARNING):
        CheckScand("image", max_foreground=0.5)(
            {"image": MetaTensor(scan, affine=torch.diag(torch.tensor([step] * 3 + [1.0])))}
        )
    assert warned in caplog.text and bool(warned) == bool(caplog.text)


def label(values=(0, 1, 2), size=(8, 8, 8), affine=None):
    data = torch.zeros(1, *size)
    data.view(-1)[: len(values)] = torch.tensor(values, dtype=torch.float32)
    return MetaTensor(data, affine=torch.eye(4) if affine is None else affine)


def test_a_label_on_its_images_grid_passes():
    data = {"image": MetaTensor(torch.tensor(GOOD)), "label": label()}
    assert CheckLabeld("label", "image", num_classes=3)(data)["label"] is data["label"]


@pytest.mark.parametrize(
    "ill, match",
    [
        (label(size=(8, 8, 7)), "the label has 8×8×7 voxels, its image 8×8×8"),
        (label(affine=torch.diag(torch.tensor([-1.0, 1, 1, 1]))), "the label's affine is not its image's"),
        (label((0, 1, 3)), r"must hold 0 to 2 only, got \[0.0, 1.0, 3.0\]"),
        (label((0, 0.5)), r"must hold 0 to 2 only, got \[0.0, 0.5\]"),
        (label(range(40)), r"got \[0.0, 1.0, .*, 9.0, …\]$"),
        (label((0, float("nan"))), "the label has voxels that are NaN or infinite"),
        (MetaTensor(torch.ones(3, 8, 8, 8)), r"one channel of class indices, got 3 \(one-hot\?\)"),
    ],
)
def test_labels_that_do_not_belong_to_their_image_are_refused(ill, match):
    with pytest.raises(ValueError, match=match):
        CheckLabeld("label", "image", num_classes=3)({"image": MetaTensor(torch.tensor(GOOD)), "label": ill})


@pytest.mark.parametrize(
    "z, passes", [(1.0, True), (0.9, True), (1.1, True), (0.89, False), (1.11, False), (3.0, False)]
)
def test_labelled_scans_must_have_the_voxels_of_level_0(z, passes):
    affine = torch.diag(torch.tensor([1.0, 1.0, z, 1.0]))
    data = {"image": MetaTensor(torch.tensor(GOOD), affine=affine), "label": label(affine=affine)}
    check = CheckLabeld("label", "image", num_classes=3, spacing=(1.0, 1.0, 1.0))
    if passes:
        assert check(data)["label"] is data["label"]
    else:
        with pytest.raises(
            ValueError, match=rf"must have voxels of 1×1×1 mm \(to 10%\), .* got 1×1×{z:g}: resample it"
        ):
            check(data)


@pytest.mark.parametrize("field_of_view, warns", [("crop", True), ("auto", False), ("head", False)])
def test_a_whole_head_is_neither_too_large_nor_too_oblique(field_of_view, warns, caplog):
    affine = torch.eye(4)
    affine[:2, :2] = torch.tensor([[0.8, -0.6], [0.6, 0.8]])  # turned by 37 degrees
    image = MetaTensor(torch.rand(1, 90, 20, 20), affine=affine, meta={"filename_or_obj": "head.nii.gz"})
    CheckScand("image", max_extent=80, field_of_view=field_of_view)({"image": image})
    assert ("field of view 90×20×20 mm" in caplog.text) == ("turned by 37 degrees" in caplog.text) == warns


def test_an_unknown_field_of_view_is_an_error():
    with pytest.raises(ValueError, match=r"field_of_view must be one of \('auto', 'head', 'crop'\), got 'whole'"):
        CheckScand("image", field_of_view="whole")
