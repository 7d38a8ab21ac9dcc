"""The tools that make the shipped weights and measure a new task's reference size."""

import importlib.util
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from rare_unet_networks.networks import RAREUNet

from .bundles.conftest import BUNDLES, DATA, needs_data, tiny  # noqa: F401

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / "tools"


@pytest.fixture(autouse=True)
def tools_on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))  # as when one of them is run


def tool(name):
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TOOLS))  # as when it is run
        spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("level", [0, 2])
def test_calibration_shifts_the_background_alone(level):
    calibrate = tool("calibrate")
    torch.manual_seed(0)
    net = RAREUNet(3, 1, 3, channels=(2, 4, 4, 4, 4), fine_convs=1).eval()
    state = net.state_dict()
    x = torch.rand(1, 1, *(32 >> level for _ in range(3)))
    with torch.no_grad():
        before = [net(x, level=level, output=o) for o in ("scan", "fine")]
        calibrate.shift(state, calibrate.bias_of(net, "scan", level), 3, 0.5)
        if level:
            calibrate.shift(state, calibrate.bias_of(net, "fine", level), 3, 0.7)
        net.load_state_dict(state)
        after = [net(x, level=level, output=o) for o in ("scan", "fine")]
    for old, new, offset in zip(before, after, (0.5, 0.7 if level else 0.5)):
        torch.testing.assert_close(new[:, 0], old[:, 0] + offset)
        torch.testing.assert_close(new[:, 1:], old[:, 1:])


def test_weights_stored_as_they_are_differ_by_their_precision_alone(tmp_path, monkeypatch):
    torch.save({"a": torch.tensor([1.0, 1 / 3])}, tmp_path / "in.pt")
    argv = ["calibrate.py", "--as_is", "--checkpoint", str(tmp_path / "in.pt"), "--output", str(tmp_path / "out.pt")]
    monkeypatch.setattr("sys.argv", argv)
    tool("calibrate").main()
    stored = torch.load(tmp_path / "out.pt", weights_only=True)
    assert torch.equal(stored["a"], torch.tensor([1.0, 0.33325195], dtype=torch.float16))


def test_reference_size_is_the_nearest_power_of_two_of_the_90th_percentile():
    # 90th percentiles of 11 values 0 … 10 are 9; 45 = 5·9 is nearer to 32 (log2 5.49), 46 would be to 64 (5.52).
    sizes = [(i, 5 * i, 5.2 * i) for i in range(11)]
    assert tool("reference_size").reference_size(sizes) == (8, 32, 64)


def test_extents_are_in_ras_order_and_in_voxels_of_the_spacing_asked_for(tmp_path):
    affine = np.array([[0, 0, 2.0, 0], [-1, 0, 0, 0], [0, 3.0, 0, 0], [0, 0, 0, 1]])  # axes P, S, R of 1, 3, 2 mm
    nib.save(nib.Nifti1Image(np.zeros((10, 20, 30), np.int16), affine), tmp_path / "a.nii.gz")
    assert tool("reference_size").extents([tmp_path / "a.nii.gz"], (1.0, 2.0, 3.0)) == [(60.0, 5.0, 20.0)]


@needs_data
def test_the_hippocampus_volumes_have_the_papers_reference_size():
    paths = sorted((DATA / "imagesTr").glob("*.nii.gz"))
    module = tool("reference_size")
    assert module.reference_size(module.extents(paths, (1.0, 1.0, 1.0))) == (32, 64, 32)
