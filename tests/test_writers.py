import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import LoadImage, SaveImage

from rare_unet_networks.data import HeaderPreservingNibabelWriter


@pytest.fixture
def image(tmp_path):
    """A scan whose header says something else than MONAI's writer would: an oblique qform alone, and seconds."""
    scan = nib.Nifti1Image(np.random.default_rng(0).random((5, 6, 7)).astype(np.float32), None)
    rotation = nib.eulerangles.euler2mat(0.1, 0.2, 0.3)
    scan.set_qform(nib.affines.from_matvec(rotation @ np.diag([1.1, 1.2, 1.3]), [5, 6, 7]), code=2)
    scan.header.set_xyzt_units("mm", "sec")
    nib.save(scan, tmp_path / "scan.nii.gz")
    return LoadImage(ensure_channel_first=True)(tmp_path / "scan.nii.gz")


@pytest.mark.parametrize("in_header", [True, False])
def test_a_prediction_is_saved_once_with_all_its_codes(image, tmp_path, monkeypatch, in_header):
    saved = []

    def count(data, path):
        saved.append((int(data.header["sform_code"]), int(data.header["qform_code"]), data.header.get_xyzt_units()))

    monkeypatch.setattr(nib, "save", count)
    if not in_header:
        del image.meta["qform_code"]
    SaveImage(
        tmp_path, output_dtype=torch.uint8, writer=HeaderPreservingNibabelWriter, resample=False, print_log=False
    )(image)
    # Without the scan's codes the file has those of MONAI's writer.
    assert saved == [(2, 2, ("mm", "sec")) if in_header else (1, 1, ("unknown", "unknown"))]
