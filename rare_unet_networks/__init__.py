"""RARE-UNet for MONAI: segmentation of 2-D and 3-D medical images at any input resolution.

Subpackages and names are imported at their first use, because PyTorch and MONAI take seconds to import and the command
``rare-unet --help`` needs neither.
"""

import sys
from importlib import import_module

__version__ = "0.10.0"
SUBPACKAGES = ("bundle", "data", "engines", "handlers", "inferers", "levels", "losses", "metrics", "networks")
SUBPACKAGES += ("reports", "runtimes", "transforms", "utils")
MODULES = {
    "MirrorInferer": "inferers",
    "MultiLevelInferer": "inferers",
    "ResolutionRoutingInferer": "inferers",
    "ResolutionLevels": "levels",
    "Route": "levels",
    "RAREUNetLoss": "losses",
    "RAREUNet": "networks",
    "Segmentation": "bundle",
    "segment": "bundle",
}
__all__ = [*SUBPACKAGES, *MODULES]


def __getattr__(name: str) -> object:
    if name in SUBPACKAGES:
        return import_module(f".{name}", __name__)
    if name in MODULES:
        return getattr(import_module(f".{MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if "monai.bundle" in sys.modules:  # a config imports the package: its command line is checked before anything runs
    from . import bundle
