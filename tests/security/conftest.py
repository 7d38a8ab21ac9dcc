"""A small untrained network, and a working directory in which no payload may leave its mark."""

import os

import pytest

from ..bundles.conftest import BUNDLES, small_weights, untrained  # noqa: F401
from .payloads import MARKER

BRAIN = BUNDLES["brain_tumor_mri_segmentation"]
SMALL_BRAIN = {"network_def#channels": [2, 4, 4, 4, 4, 4], "network_def#fine_channels": [4, 4, 4]}


@pytest.fixture(scope="session")
def brain_weights(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("weights") / "brain.pt", BRAIN, SMALL_BRAIN)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory of a test, which fails if a payload was run there."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not os.path.exists(MARKER), "a payload was run"
