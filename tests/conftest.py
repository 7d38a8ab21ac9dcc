import logging
import os

import pytest
import torch

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # each worker has a core


@pytest.fixture(autouse=True)
def loggers_speak():
    """Configs quieten loggers of the package in their process; here many run in one."""
    logging.getLogger("rare_unet_networks.inferers").setLevel(logging.NOTSET)
