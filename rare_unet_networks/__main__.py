"""``python -m rare_unet_networks``: the command ``rare-unet`` where it is not installed."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
