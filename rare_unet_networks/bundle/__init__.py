"""Helpers for the command line of a bundle."""

from .calibration import calibrate
from .command_line import bundle_root, check_command_line, command_options, config_files
from .options import prediction_options
