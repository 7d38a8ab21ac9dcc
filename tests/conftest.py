import logging

import pytest


@pytest.fixture(autouse=True)
def loggers_speak():
    """Configs quieten loggers of the package in their process; here many run in one."""
    logging.getLogger("rare_unet_networks.inferers").setLevel(logging.NOTSET)
