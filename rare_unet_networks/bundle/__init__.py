"""Helpers for the command line of a bundle."""

from ..cli.words import check_words
from .calibration import calibrate
from .command_line import bundle_root, check_command_line, command_options, config_files
from .device import check_device
from .doubt_limits import find_doubt_limits
from .options import prediction_options
from .overrides import check_overrides
from .segmentation import Segmentation, segment
from .trust import trust_model
from .trust_scans import find_trust

check_words()  # here, because further words on a command line replace a config's own checks
