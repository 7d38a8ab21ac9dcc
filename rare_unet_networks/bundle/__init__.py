"""What a bundle's command line needs."""

from .command_line import bundle_root, check_command_line, command_options, config_files
