import json

import pytest

from rare_unet_networks.data import expand_acquisitions
from rare_unet_networks.data.acquisitions import Acquisition, read_acquisitions

ILL = [
    (dict(spacing=(1, 1, 0)), "spacing must be finite and above 0 mm, got 1×1×0"),
    (dict(spacing=(1, 1, 1), thickness=(1, 1)), "thickness must have 3 axes as spacing has, got 2"),
    (dict(spacing=(1, 1, 1), thickness=(1, 1, -1)), "thickness must be finite and above 0 mm"),
    (dict(spacing=(1, 1, 1), offset=(0, 0, float("nan"))), "offset must be finite, got"),
    (dict(spacing=(1, 1, 1), profile="sinc"), "profile must be one of .*, got 'sinc'"),
    (dict(spacing=(1, 1, 1), noise=-0.1), "noise must be 0 or more, got -0.1"),
]
ILL_LISTS = [
    ([], r"acquisitions must be a list of spacings or acquisitions, got \[\]"),
    ({"spacing": 1}, "must be a list"),
    ([2, 0], "acquisitions: {'spacing': .*} is no acquisition: spacing must be finite and above 0"),
    (["thick"], "is no acquisition"),
    ([{"spacing": 2, "slices": 3}], "is no acquisition: .*slices"),
    ([[1, 1]], "spacing must have 3 axes, got 1x1"),
    ([2, [2, 2, 2]], "must name each spacing and profile once, got 2x2x2 gaussian twice"),
    ("no_such.json", "acquisitions must be a list or a JSON file, no_such.json: No such file"),
]


@pytest.mark.parametrize("arguments, match", ILL)
def test_ill_acquisitions_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        Acquisition(**arguments)


def test_acquisitions_are_read_from_numbers_lists_and_dictionaries(tmp_path):
    entries = [1.4, [1, 1, 5], {"spacing": 5, "profile": "box"}, {"spacing": [1, 1, 5], "profile": "box", "noise": 0.1}]
    (tmp_path / "list.json").write_text(json.dumps(entries))
    expected = [
        Acquisition((1.4, 1.4, 1.4)),
        Acquisition((1.0, 1.0, 5.0)),
        Acquisition((5.0, 5.0, 5.0), "box"),
        Acquisition((1.0, 1.0, 5.0), "box", noise=0.1),
    ]
    assert read_acquisitions(entries) == read_acquisitions(str(tmp_path / "list.json")) == expected
    assert read_acquisitions(2, spatial_dims=2) == [Acquisition((2.0, 2.0))]
    assert [a.spacing_name for a in expected] == ["1.4x1.4x1.4", "1x1x5", "5x5x5", "1x1x5"]


@pytest.mark.parametrize("entries, match", ILL_LISTS)
def test_ill_lists_are_refused(entries, match):
    with pytest.raises(ValueError, match=match):
        read_acquisitions(entries)


def test_a_file_that_is_no_json_is_named(tmp_path):
    (tmp_path / "list.json").write_text("1, 2")
    with pytest.raises(ValueError, match=r"list\.json must be a JSON file"):
        read_acquisitions(str(tmp_path / "list.json"))


def test_every_case_is_expanded_to_every_acquisition_and_named():
    acquisitions = read_acquisitions([2, [1, 1, 5]])
    found = expand_acquisitions([{"image": "folder/a.nii.gz"}, {"image": "b.nii", "case": "c"}], acquisitions)
    assert [(item["case"], item["spacing"], item["profile"]) for item in found] == [
        ("a", "2x2x2", "gaussian"), ("a", "1x1x5", "gaussian"), ("c", "2x2x2", "gaussian"), ("c", "1x1x5", "gaussian"),
    ]  # fmt: skip
    assert [item["acquisition"] for item in found] == 2 * acquisitions
