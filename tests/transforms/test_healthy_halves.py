"""Brains made of their healthy half."""

import pytest
import torch
from monai.data import MetaTensor

from rare_unet_networks.transforms.hemisphere import RandMirrorHealthyHemisphered, mirror_healthy_hemisphere

AFFINE = torch.diag(torch.tensor([1.0, 2.0, 2.0, 1.0], dtype=torch.float64))


def brain(tumour, slices=5):
    """Image of ``slices`` sagittal slices with the values 1, 2, …, and a label with tumour in the slices given."""
    values = torch.arange(1.0, slices + 1)[None, :, None, None]
    label = torch.zeros(1, slices, 2, 2)
    label[:, tumour] = 1
    return MetaTensor(values.expand(2, slices, 2, 2).clone(), affine=AFFINE), MetaTensor(label, affine=AFFINE)


# sagittal slices with tumour, number of slices, the slices' values afterwards; None where both halves have tumour
CASES = [
    ([4], 5, [1, 2, 3, 2, 1]),
    ([0, 1], 5, [5, 4, 3, 4, 5]),
    ([2, 3, 4], 5, [1, 2, 0, 2, 1]),
    ([3], 4, [1, 2, 2, 1]),
    ([], 4, [4, 3, 3, 4]),
    ([0, 4], 5, None),
]


@pytest.mark.parametrize("tumour, slices, expected", CASES)
def test_a_head_without_tumour_is_its_healthy_half_twice(tumour, slices, expected):
    head = mirror_healthy_hemisphere(*brain(tumour, slices))
    assert head is None if expected is None else head[1, :, 1, 0].tolist() == expected


def test_the_zeros_around_a_brain_do_not_count():
    image, label = brain([7], slices=8)
    image[:, :3] = 0  # slices 3 to 7 are left, their middle is 5
    assert mirror_healthy_hemisphere(image, label)[0, :, 0, 0].tolist() == [0, 0, 0, 4, 5, 6, 5, 4]
    assert mirror_healthy_hemisphere(torch.zeros_like(image), label) is None


def test_what_little_tumour_the_better_half_has_becomes_background():
    """One voxel of 101 is less than 2 %, three of 103 are more."""
    image, label = torch.ones(1, 4, 10, 10), torch.zeros(1, 4, 10, 10)
    label[:, 3] = 1
    label[0, 0, 0, 0] = 1
    head = mirror_healthy_hemisphere(image, label)
    assert int((head == 0).sum()) == 2 and head[0, 0, 0, 0] == 0 and head[0, 3, 0, 0] == 0
    label[0, 0, 0, :3] = 1
    assert mirror_healthy_hemisphere(image, label) is None
    assert mirror_healthy_hemisphere(image, label, most=0.05) is not None


def test_the_transform_empties_the_label_and_keeps_affines_and_what_it_was_given():
    image, label = brain([4])
    before = image.clone()
    out = RandMirrorHealthyHemisphered("image", prob=1.0)({"image": image, "label": label})
    assert out["image"][0, :, 0, 0].tolist() == [1, 2, 3, 2, 1] and int(out["label"].sum()) == 0
    assert torch.equal(out["image"].affine, AFFINE) and torch.equal(out["label"].affine, AFFINE)
    assert torch.equal(image, before) and int(label.sum()) == 4


def test_all_images_of_a_case_get_the_same_half():
    image, label = brain([4])
    other = image.clone()
    other[:, :2] = 0  # alone it would be halved elsewhere
    out = RandMirrorHealthyHemisphered(["image", "other"], prob=1.0)({"image": image, "other": other, "label": label})
    assert out["image"][0, :, 0, 0].tolist() == [1, 2, 3, 2, 1] and out["other"][0, :, 0, 0].tolist() == [0, 0, 3, 0, 0]


@pytest.mark.parametrize("tumour, prob", [([4], 0.0), ([0, 4], 1.0)])
def test_without_luck_or_without_a_healthy_half_nothing_changes(tumour, prob):
    image, label = brain(tumour)
    out = RandMirrorHealthyHemisphered("image", prob=prob)({"image": image, "label": label})
    assert out["image"] is image and out["label"] is label
