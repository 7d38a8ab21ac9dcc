"""At which levels labelled scans of any voxel size are scored."""

import logging

import nibabel as nib
import numpy as np
import pytest

from rare_unet_networks.data import LevelsDataset, expand_scored_levels
from rare_unet_networks.levels import ResolutionLevels

LEVELS = ResolutionLevels(4, (32, 64, 32), (1.0, 1.0, 1.0), rule="volume")


@pytest.fixture
def items(tmp_path):
    """Cases a to e; e cannot be read."""
    cases = {"a": (1, 1, 1), "b": (2, 2, 2), "c": (1, 1, 5), "d": (0.5, 0.5, 0.5)}
    for case, spacing in cases.items():
        nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.diag([*spacing, 1])), tmp_path / f"{case}.nii")
    (tmp_path / "e.nii").write_bytes(b"none")
    return [{"image": f"{case}_image", "label": str(tmp_path / f"{case}.nii"), "case": case} for case in "abcde"]


def levels_by_case(expanded):
    found = {}
    for item in expanded:
        found.setdefault(item["case"], []).append(item["level"])
    return found


def test_a_scan_is_scored_at_its_own_level_and_where_blocks_of_it_are_the_coarser_ones(items, caplog):
    with caplog.at_level(logging.INFO):
        found = levels_by_case(expand_scored_levels(items, [0, 1, 2, 3], LEVELS))
    # c, of 1×1×5 mm, enters at level 1, but no blocks of it are 4 mm; e fails later, at each level.
    assert found == {"a": [0, 1, 2, 3], "b": [1, 2, 3], "c": [1], "d": [0], "e": [0, 1, 2, 3]}
    (message,) = caplog.messages
    assert message.startswith("3 of 5 labelled scans are not of 1×1×1 mm: scored on their own grid")
    assert message.endswith("b (2×2×2), c (1×1×5), d (0.5×0.5×0.5)")


def test_scans_of_1_mm_are_as_before_and_say_nothing(items, caplog):
    with caplog.at_level(logging.INFO):
        assert levels_by_case(expand_scored_levels(items[:1], [0, 2], LEVELS)) == {"a": [0, 2]}
    assert caplog.messages == []


def test_levels_at_which_no_scan_can_be_scored_are_refused(items):
    with pytest.raises(ValueError, match=r"val_levels must have a level at which .* can be scored, got \[0\]"):
        expand_scored_levels(items[1:2], [0], LEVELS)


def test_a_dataset_of_a_training_has_the_same_items(items):
    dataset = LevelsDataset(items[:3], [0, 1], resolution_levels=LEVELS, cache_rate=0.0)
    assert levels_by_case(dataset.data) == {"a": [0, 1], "b": [1], "c": [1]}
    assert levels_by_case(LevelsDataset(items[:3], [0, 1], cache_rate=0.0).data) == {case: [0, 1] for case in "abc"}


def test_scans_that_no_level_fits_are_named(items, caplog):
    with caplog.at_level(logging.WARNING):
        assert levels_by_case(expand_scored_levels(items[:3], [0], LEVELS)) == {"a": [0]}
    assert caplog.messages == ["2 of 3 labelled scans are not scored, none of val_levels [0] fits: b, c"]
