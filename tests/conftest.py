import logging

import pytest


@pytest.fixture(autouse=True)
def log_levels_as_before():
    """Configs quieten loggers of the package in their process; here many run in one."""
    logger = logging.getLogger("rare_unet_networks.inferers")
    before = logger.level
    yield
    logger.setLevel(before)
