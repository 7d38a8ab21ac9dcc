"""Removal of the skull: with a package of the same interface as deepbet, and once with deepbet itself."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage

from rare_unet_networks.transforms import SkullStripper, skull, skull_stripper

from ..bundles.conftest import DATA, needs_data

MODALITIES = ["FLAIR", "T1w", "T1Gd", "T2w"]
VOXEL = 10.0  # mm, so that a voxel has a millilitre


class BrainExtraction:
    """Takes voxels of 100 or more as brain; like deepbet's it returns images, and fails if there is none."""

    def __init__(self, no_gpu):
        assert no_gpu

    def run(self, image):
        mask = image.get_fdata() >= 100
        assert mask.any(), "Not enough foreground to calculate bounding box"
        return None, nib.Nifti1Image(mask.astype(np.uint8), image.affine), 0.0


@pytest.fixture
def deepbet(monkeypatch):
    module = ModuleType("deepbet")
    module.BrainExtraction, module.__spec__ = BrainExtraction, ModuleSpec("deepbet", None)
    monkeypatch.setitem(sys.modules, "deepbet", module)
    monkeypatch.setattr(skull, "version", lambda name: "1.0")


def head(**millilitres):
    """Noise below 50, and in the channels that are named a brain of 100 from the corner on, in other order of axes."""
    scan = 1 + 49 * torch.rand(4, 12, 14, 16, generator=torch.Generator().manual_seed(0))
    for modality, n in millilitres.items():
        scan[MODALITIES.index(modality)].view(-1)[:n] = 100.0
    affine = torch.zeros(4, 4, dtype=torch.float64)
    affine[0, 1], affine[1, 2], affine[2, 0], affine[3, 3] = -VOXEL, VOXEL, VOXEL, 1
    return MetaTensor(scan, affine=affine, meta={"filename_or_obj": "/scans/a.nii.gz"})


@pytest.mark.parametrize(
    "brains, modality, litres",
    [
        ({"T1w": 1500, "FLAIR": 900}, "T1w", "1.50"),
        ({"FLAIR": 900, "T1Gd": 1000, "T2w": 1100}, "FLAIR", "0.90"),
        ({"T1w": 300, "FLAIR": 2400, "T2w": 1200}, "T2w", "1.20"),
    ],
)
def test_all_channels_get_the_mask_of_the_first_modality_with_a_brain(deepbet, brains, modality, litres):
    scan = head(**brains)
    stripped = SkullStripper(MODALITIES)(scan)
    inside = scan[MODALITIES.index(modality)].as_tensor() >= 100
    assert torch.equal(stripped.as_tensor(), torch.where(inside, scan.as_tensor(), 0.0))
    assert torch.equal(stripped.affine, scan.affine)
    assert stripped.meta["skull"] == f"removed, {litres} l are left (mask of {modality} by deepbet 1.0)"


@pytest.mark.parametrize("shift, cut, warned", [(0, 12, False), (180, 12, True), (0, 6, False)])
def test_modalities_whose_brains_lie_apart_are_warned_of_within_their_fields_of_view(deepbet, shift, cut, warned):
    """Of 1500 voxels in a row, 180 are elsewhere: a Dice of .88. A stack that ends early is no reason."""
    scan = head(T1w=1500, T2w=1500)
    scan[3].view(-1)[:shift], scan[3].view(-1)[1500 : 1500 + shift] = 50.0, 100.0
    scan[3, cut:] = 0
    first, *others = SkullStripper(MODALITIES)(scan).meta["warnings"].splitlines()
    assert first.startswith("the skull was removed, 1.50 l are left (mask of T1w by deepbet 1.0): look at the border")
    text = "T2w does not lie on T1w: their brains overlap with a Dice of 0.88 only, register them first"
    assert others == ([text] if warned else [])


def test_a_scan_without_a_brain_is_an_error_with_the_volumes_that_were_found(deepbet):
    scan = head(T1w=300)
    scan[0] = 7.0  # a missing modality is not tried
    reason = r"/scans/a.nii.gz: deepbet finds no brain of 0.7 to 2.3 l \(T1w 0.30 l, T1Gd 0.00 l, T2w 0.00 l\): remove"
    with pytest.raises(ValueError, match=reason):
        SkullStripper(MODALITIES)(scan)


def test_without_the_extra_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(skull, "find_spec", lambda name: None)
    with pytest.raises(
        ImportError, match=r"^skull_strip true needs deepbet: pip install 'rare-unet-networks\[skull\]'$"
    ):
        skull_stripper("true", MODALITIES)
    assert skull_stripper("false", MODALITIES) is None
    with pytest.raises(ValueError, match="true or false"):
        skull_stripper("maybe", MODALITIES)


@needs_data
@pytest.mark.slow
def test_deepbet_keeps_the_brain_of_a_real_head_and_removes_the_rest():
    pytest.importorskip("deepbet", reason="skull stripping needs deepbet (extra skull)")
    load = LoadImage(image_only=True, ensure_channel_first=True)
    scan = load(DATA / "WholeHead" / "images" / "ds000011_sub-05.nii.gz")
    hippocampi = load(DATA / "WholeHead" / "hippocampi" / "ds000011_sub-05.nii.gz").as_tensor() > 0
    stripped = SkullStripper(["T1w"])(scan)
    brain = stripped.as_tensor() != 0
    assert 1.4 < float(brain.sum()) * 0.008 / 1000 < 1.75
    assert bool(brain[hippocampi].all())
    assert torch.equal(stripped.as_tensor()[brain], scan.as_tensor()[brain])
