"""A small untrained network, and a working directory in which no payload may leave its mark."""

import os

import pytest
import torch
from monai.bundle import ConfigParser

from ..bundles.conftest import BUNDLES, SMALL
from .payloads import MARKER

BRAIN = BUNDLES["brain_tumor_mri_segmentation"]
SMALL_BRAIN = {"network_def#channels": [2, 4, 4, 4, 4, 4], "network_def#fine_channels": [4, 4, 4]}


def untrained(bundle, small, path):
    """Stores weights of a bundle's network, made small, as they are before a training."""
    parser = ConfigParser(ConfigParser.load_config_file(bundle / "configs" / "inference.json"))
    parser.update(small)
    torch.manual_seed(0)
    torch.save(parser.get_parsed_content("network_def").state_dict(), path)
    return str(path)


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    hippocampus = untrained(BUNDLES["hippocampus_mri_segmentation"], SMALL, folder / "hippocampus.pt")
    return {"hippocampus": hippocampus, "brain": untrained(BRAIN, SMALL_BRAIN, folder / "brain.pt")}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory of a test, which fails if a payload was run there."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not os.path.exists(MARKER), "a payload was run"
