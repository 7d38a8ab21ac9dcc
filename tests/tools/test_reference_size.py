"""tools/reference_size.py measures a new task's reference size."""

import nibabel as nib
import numpy as np

from ..bundles.conftest import DATA, needs_data
from .helpers import tool


def test_reference_size_is_the_nearest_power_of_two_of_the_90th_percentile():
    # 90th percentiles of 11 values 0 … 10 are 9; 45 = 5·9 is nearer to 32 (log2 5.49), 46 would be to 64 (5.52).
    sizes = [(i, 5 * i, 5.2 * i) for i in range(11)]
    assert tool("reference_size").reference_size(sizes) == (8, 32, 64)


def test_extents_are_in_ras_order_and_in_voxels_of_the_given_spacing(tmp_path):
    affine = np.array([[0, 0, 2.0, 0], [-1, 0, 0, 0], [0, 3.0, 0, 0], [0, 0, 0, 1]])  # axes P, S, R of 1, 3, 2 mm
    nib.save(nib.Nifti1Image(np.zeros((10, 20, 30), np.int16), affine), tmp_path / "a.nii.gz")
    assert tool("reference_size").extents([tmp_path / "a.nii.gz"], (1.0, 2.0, 3.0)) == [(60.0, 5.0, 20.0)]


@needs_data
def test_the_hippocampus_volumes_have_the_papers_reference_size():
    paths = sorted((DATA / "imagesTr").glob("*.nii.gz"))
    module = tool("reference_size")
    assert module.reference_size(module.extents(paths, (1.0, 1.0, 1.0))) == (32, 64, 32)
