"""Overlays: entries that are misspelt are an error, those that are used or new are not."""

import json
import re

import pytest

from rare_unet_networks.bundle.command_line import check_command_line
from rare_unet_networks.bundle.overlays import check_overlays

CONFIGS = {
    "inference.json": {
        "class_names": ["x"],
        "levels": {"_target_": "rare_unet_networks.levels.ResolutionLevels", "num_levels": 2},
        "load": [{"_target_": "monai.transforms.Identity"}],
        "values": {"a": 1},
        "run": ["$print(@class_names)"],
    },
    "train.json": {"patch_size": [1], "train": {"steps": 3}},
}


@pytest.fixture
def files(tmp_path):
    """Returns a function: config files with an overlay of this content."""
    (tmp_path / "configs").mkdir()
    for name, content in CONFIGS.items():
        (tmp_path / "configs" / name).write_text(json.dumps(content))

    def with_overlays(*contents, name="inference.json"):
        paths = [str(tmp_path / "configs" / name)]
        for i, content in enumerate(contents):
            path = tmp_path / f"overlay_{i}.json"
            path.write_text(json.dumps(content))
            paths.append(str(path))
        return paths

    return with_overlays


@pytest.mark.parametrize(
    "contents",
    [
        [],
        [{"class_names": ["y"]}],
        [{"patch_size": [2]}],  # of train.json, for inference too
        [{"levels#rule": "volume", "levels::spacing": [1, 1, 1]}],
        [{"+load": [], "load#0#_target_": "monai.transforms.Identity"}],
        [{"clas_names": ["y"], "run": ["$@clas_names"]}],  # similar, but used
        [{"something": 1}],  # of another program, similar to nothing
        [{"wording": 1}, {"wording": 2}],
        [{"values": {"b": "@class_name"}, "class_name": 1}],
        [{"levels#_target_": "rare_unet_networks.baselines.FixedLevel", "levels#level": 1}],
    ],
)
def test_known_used_and_new_entries_pass(files, contents):
    check_overlays(files(*contents))


@pytest.mark.parametrize(
    "contents, number, entry, guess",
    [
        ([{"clas_names": ["y"]}], 0, "clas_names", "class_names"),
        ([{"pach_size": [2]}], 0, "pach_size", "patch_size"),
        ([{}, {"levels#spacng": [1, 1, 1]}], 1, "levels#spacng", "levels#spacing"),
        ([{"levels::num_level": 3}], 0, "levels::num_level", "levels#num_levels"),
        ([{"+loads": []}], 0, "+loads", "load"),
        ([{"wording": 1}, {"wordings": 2}], 1, "wordings", "wording"),
        ([{"levels#level": 1}], 0, "levels#level", "levels#num_levels"),
    ],
)
def test_misspelt_entries_are_named_with_their_file(files, contents, number, entry, guess):
    name = rf"overlay_{number}.json: {re.escape(entry)}"
    message = rf"^error: .*{name} is no entry of the config\. Did you mean {re.escape(guess)}\?$"
    with pytest.raises(SystemExit, match=message):
        check_overlays(files(*contents))


def test_an_argument_that_resembles_none_is_an_error_too(files):
    with pytest.raises(SystemExit, match=r"levels#colour is no entry of the config\.$"):
        check_overlays(files({"levels#colour": "red"}))


def test_a_command_with_a_misspelt_overlay_ends(files):
    command = ["/monai/bundle/__main__.py", "run", "run", "--config_file", str(files({"clas_names": ["y"]}))]
    with pytest.raises(SystemExit, match=r"clas_names is no entry of the config\. Did you mean class_names\?$"):
        check_command_line(command)
