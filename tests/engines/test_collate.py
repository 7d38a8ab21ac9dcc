import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from rare_unet_networks import ResolutionLevels
from rare_unet_networks.engines import CollateAcquisitions, PreparePyramidBatch
from rare_unet_networks.transforms import MultiResolutionPyramidd, RandSimulateAcquisitiond, ResampleToLeveld

LEVELS = ResolutionLevels(4, (32, 64, 32), (1.0, 1.0, 1.0), rule="volume")


def cases():
    image, other = torch.rand(1, 32, 32, 32), torch.rand(1, 24, 40, 32)
    return [
        {"image": MetaTensor(x), "label": MetaTensor((x > 0.9).float()), "case": name}
        for name, x in (("a", image), ("b", other))
    ]


def collate(spacing=(2.0, 2.0), **options):
    return CollateAcquisitions(
        LEVELS,
        RandSimulateAcquisitiond("image", isotropic=spacing, anisotropic_prob=0, noise=(0, 0)),
        ResampleToLeveld(LEVELS),
        Compose([MultiResolutionPyramidd("image", "label")]),
        **options,
    )


def levels_of(batch):
    return sorted(int(key[-1]) for key in batch if key.startswith("image_"))


@pytest.mark.parametrize(
    "spacing, options, level",
    [
        (2.0, dict(finer_prob=0, coarser_prob=0), 1),
        (2.0, dict(finer_prob=1, coarser_prob=0), 0),
        (2.0, dict(finer_prob=0, coarser_prob=1), 2),
        (1.0, dict(finer_prob=1, coarser_prob=0), 0),
        (8.0, dict(finer_prob=0, coarser_prob=1), 3),
    ],
)
def test_the_members_of_a_batch_enter_one_level(spacing, options, level):
    batch = collate((spacing, spacing), prob=1, **options)(cases())
    assert levels_of(batch) == [level]
    assert batch[f"image_{level}"].shape[0] == 2
    fine = [2**level * n for n in batch[f"image_{level}"].shape[2:]]
    assert list(batch["label_0"].shape[2:]) == fine
    images, labels, _, kwargs = PreparePyramidBatch([0, 1, 2, 3], [0.0, 0.0, 1.0])(batch)
    assert kwargs == {"levels": [level]} and len(images) == 1
    assert [tuple(x.shape) for x in labels] == [tuple(batch[f"label_{d}"].shape) for d in sorted({level, 0})[::-1]]


def test_the_members_of_a_batch_share_the_acquisition_and_batches_do_not():
    torch.manual_seed(0)
    seen = []

    def to_level(case):
        seen.append(tuple(case["image"].affine.diagonal().tolist()))
        return ResampleToLeveld(LEVELS)(case)

    function = collate((1.0, 8.0), prob=1)
    function.to_level = to_level
    for _ in range(10):
        function(cases())
    assert seen[::2] == seen[1::2]
    assert len(set(seen)) == 10


def test_a_share_of_the_batches_are_pyramids():
    torch.manual_seed(0)
    found = [len(levels_of(collate(prob=0.5)(cases()))) for _ in range(40)]
    assert set(found) == {1, 4} and 10 <= found.count(4) <= 30
    assert levels_of(collate(prob=0)(cases())) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "options, match",
    [
        (dict(prob=1.5), "prob must be 0 to 1, got 1.5"),
        (dict(finer_prob=0.6, coarser_prob=0.6), "at most 1 together, got 0.6 and 0.6"),
        (dict(finer_prob=-0.1), "must be 0 or more"),
    ],
)
def test_ill_probabilities_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        collate(**options)
