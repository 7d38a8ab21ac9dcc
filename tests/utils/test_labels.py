"""Label maps from probabilities, and masks of label maps."""

import torch
from monai.data import MetaTensor
from monai.transforms import AsDiscreted

from rare_unet_networks.transforms import AsLabelMapd
from rare_unet_networks.utils.labels import count_labels, is_one_of, most_likely


def test_of_equally_likely_classes_the_first_is_taken():
    probabilities = torch.tensor([[0.2, 0.4, 0.1], [0.5, 0.4, 0.1], [0.3, 0.2, 0.8]])
    assert most_likely(probabilities).tolist() == [1, 0, 2]


def test_a_mask_has_the_voxels_of_the_classes_that_are_named():
    labels = torch.tensor([0.0, 1.0, 2.0, 3.0])
    assert is_one_of(labels, [1, 3]).tolist() == [False, True, False, True]
    assert not is_one_of(labels, []).any()


def test_the_voxels_of_each_class_are_counted():
    assert count_labels(torch.tensor([[0.0, 2.0, 2.0], [4.0, 1.0, 0.0]]), 4) == [0, 1, 2, 0]
    assert count_labels(torch.zeros(2, 2), 3) == [0, 0, 0]


def test_the_transform_gives_what_monais_gives():
    torch.manual_seed(0)
    scan = MetaTensor(torch.rand(3, 4, 5, 6).round(decimals=1), affine=torch.diag(torch.tensor([2.0, 1, 1, 1])))
    (ours, monais) = (t({"pred": scan})["pred"] for t in (AsLabelMapd("pred"), AsDiscreted("pred", argmax=True)))
    assert torch.equal(ours, monais) and ours.dtype == monais.dtype and torch.equal(ours.affine, monais.affine)
    assert type(AsLabelMapd("pred")({"pred": scan.as_tensor()})["pred"]) is torch.Tensor
