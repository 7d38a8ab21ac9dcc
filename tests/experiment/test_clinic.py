"""The scripts of docs/clinic.md: series are written as they are read again, and a moved scan is brought back."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from .conftest import SCRIPTS, script

OBLIQUE = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.1, -0.2, 0.3) @ np.diag([2.0, 2.0, 3.0]), [-30, 20, 5])


@pytest.fixture(autouse=True)
def scripts_on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))


def scan(affine, gain=1.0):
    """Three blobs of different width and brightness, on 40×40×28 voxels."""
    grid = torch.stack(torch.meshgrid(*(torch.arange(n) - n / 2 for n in (40.0, 40.0, 28.0)), indexing="ij"))
    image = torch.zeros(grid.shape[1:])
    for centre, width, value in (((0, 0, 0), 9, 100), ((7, -5, 4), 3, 80), ((-6, 6, -4), 4, 60)):
        image += value * torch.exp(-((grid - torch.tensor(centre)[:, None, None, None]) ** 2).sum(0) / 2 / width**2)
    return MetaTensor(gain * image[None], affine=torch.as_tensor(affine))


def test_a_scan_that_was_moved_is_brought_back_by_its_header():
    pytest.importorskip("SimpleITK", reason="registration needs SimpleITK")
    turn = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.05, 0.0, -0.08), [6.0, -4.0, 3.0])
    fixed, moving = scan(OBLIQUE), scan(turn @ OBLIQUE, gain=-2.0)
    found = script("register_modalities").motion(fixed, moving) @ moving.affine.numpy()
    corners = np.array([[x, y, z, 1.0] for x in (8, 32) for y in (8, 32) for z in (6, 22)]).T
    assert np.linalg.norm(((moving.affine.numpy() - OBLIQUE) @ corners)[:3], axis=0).min() > 3
    assert np.linalg.norm(((found - OBLIQUE) @ corners)[:3], axis=0).max() < 1


def test_series_are_read_again_at_their_place(tmp_path):
    pytest.importorskip("pydicom", reason="DICOM needs pydicom")
    written = scan(OBLIQUE)
    common = {"PatientName": "x", "PatientID": "x", "StudyInstanceUID": "1.2.3"}
    script("clinic_series").write_series(tmp_path / "t1", written, 2, "t1_se_tra", common)
    read = script("register_modalities").read(tmp_path / "t1")
    value = read.as_tensor().flatten().argmax()
    voxels = [np.unravel_index(int(i), image.shape[1:]) for i, image in ((value, read), (written.argmax(), written))]
    places = [image.affine.double().numpy() @ [*v, 1] for v, image in zip(voxels, (read, written))]
    np.testing.assert_allclose(places[0], places[1], atol=0.01)
    assert float(read.max()) == 4095 and len(list((tmp_path / "t1").iterdir())) == 28
