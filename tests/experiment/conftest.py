"""The experiment's overlays and scripts, beside the fixtures of the bundles' tests."""

import importlib.util

import pytest

from ..bundles.conftest import REPOSITORY, tiny, trained  # noqa: F401
from ..bundles.test_brain_tumor import heads  # noqa: F401

EXPERIMENT = REPOSITORY / "docs/experiment"
OVERLAYS = EXPERIMENT / "overlays"
SCRIPTS = EXPERIMENT / "scripts"
PROTOCOL = OVERLAYS / "paper_protocol.json"


def overlays(task, names):
    """Paths of overlays by their names: of a task, or of both."""
    paths = [OVERLAYS / task / f"{name}.json" for name in names]
    return [path if path.exists() else OVERLAYS / path.name for path in paths]


def script(name):
    """A script of the experiment as a module."""
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))  # as when it is run
        spec.loader.exec_module(module)
    return module
