"""The version of the package is the same everywhere; tests/oldest_versions.txt has the lower bounds of setup.cfg."""

import configparser
import os
import re
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from rare_unet_networks import __version__

TESTS = Path(__file__).parent
NEWER = {"torch"}  # see tests/oldest_versions.txt


def pins():
    lines = (TESTS / "oldest_versions.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_the_oldest_versions_are_the_lower_bounds_of_the_package():
    setup = configparser.ConfigParser()
    setup.read(TESTS.parent / "setup.cfg")
    lines = setup["options"]["install_requires"].split()
    bounds = dict(re.match(r"([\w-]+)>=([\d.]+)", line).groups() for line in lines)
    assert bounds.keys() - NEWER <= pins().keys()
    for name in bounds.keys() - NEWER:
        numbers = re.sub(r"\.post\d+", "", pins()[name]).split(".")
        bound = bounds[name].split(".")
        assert numbers == bound + ["0"] * (len(numbers) - len(bound))


def test_the_citation_and_the_newest_release_of_the_changelog_are_of_the_package_s_version():
    """CONTRIBUTING.md, "A release" has the steps."""
    citation = yaml.safe_load((TESTS.parent / "CITATION.cff").read_text(encoding="utf-8"))
    changelog = (TESTS.parent / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.search(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)$", changelog, re.MULTILINE)
    assert (citation["version"], citation["date-released"]) == released.groups()
    assert citation["version"] == __version__
    assert citation["preferred-citation"]["title"].startswith("RARE-UNet: Resolution-Aligned Routing Entry")


@pytest.mark.skipif("OLDEST_VERSIONS" not in os.environ, reason="is for the environment of the oldest versions")
@pytest.mark.parametrize("name", pins())
def test_this_environment_has_the_oldest_versions(name):
    assert version(name) == pins()[name]
