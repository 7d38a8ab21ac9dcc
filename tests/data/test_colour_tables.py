"""Tables of names and colours beside the predictions, as ITK-SNAP and 3D Slicer read them."""

import json
import re

import pytest

from rare_unet_networks.data import collect_volumes, prediction_path
from rare_unet_networks.data.colour_tables import itk_snap_table, slicer_table
from rare_unet_networks.data.record_files import record_path
from rare_unet_networks.utils.colours import label_colour

CROP = ("anterior", "posterior")
HEAD = ("left anterior", "left posterior", "right anterior", "right posterior")
RGB = [(230, 159, 0), (86, 180, 233), (240, 228, 66), (0, 158, 115)]  # of the first four labels


def record(folder, case, names, **entries):
    path = prediction_path(case, "scan", folder)
    path.touch()
    volumes = {name: {"voxels": 1, "mm3": 1.0, "mm3_fine": None} for name in names}
    content = {"case": case, "grid": "scan", "spacing": [1, 1, 1], "level": 0, "seconds": 1, "volumes": volumes}
    record_path(path).write_text(json.dumps({**content, **entries}))


def read_itk_snap(path):
    """Names by label with their colour, as ITK-SNAP reads them: lines without ``#``, the name in quotes."""
    rows = {}
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            match = re.fullmatch(r'\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+([01])\s+([01])\s+([01])\s+"([^"]*)"', line)
            rows[int(match[1])] = match[8], tuple(map(int, match.groups()[1:4]))
            assert match.groups()[4:7] == (("0", "0", "0") if match[1] == "0" else ("1", "1", "1"))
    return rows


def read_slicer(path):
    """Names by label with their colour, as Slicer reads them: six fields divided by spaces below the first line."""
    first, second, *lines = path.read_text().splitlines()
    assert first == "# Color table file" and second == f"# {len(lines)} values"
    fields = [line.split(" ") for line in lines]
    assert [field[5] for field in fields] == ["0", *["255"] * (len(fields) - 1)]
    return {int(field[0]): (field[1], tuple(map(int, field[2:5]))) for field in fields}


def test_names_and_colours_are_those_of_the_labels(tmp_path):
    for case in "ab":
        record(tmp_path, case, CROP)
    collect_volumes(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("labels*")) == ["labels_itksnap.txt", "labels_slicer.ctbl"]
    labels = {1: ("anterior", RGB[0]), 2: ("posterior", RGB[1])}
    black = (0, 0, 0)
    assert read_itk_snap(tmp_path / "labels_itksnap.txt") == {0: ("Clear Label", black), **labels}
    assert read_slicer(tmp_path / "labels_slicer.ctbl") == {0: ("background", black), **labels}


def test_whole_heads_have_tables_of_their_own_with_all_labels(tmp_path):
    record(tmp_path, "crop", CROP)
    record(tmp_path, "head", HEAD[:2], labels={str(i): name for i, name in enumerate(HEAD, start=1)}, totals={})
    collect_volumes(tmp_path)
    assert len(read_slicer(tmp_path / "labels_slicer.ctbl")) == 3
    rows = read_slicer(tmp_path / "labels_head_slicer.ctbl")
    assert [rows[i] for i in range(1, 5)] == [(name.replace(" ", "_"), rgb) for name, rgb in zip(HEAD, RGB)]
    rows = read_itk_snap(tmp_path / "labels_head_itksnap.txt")
    assert [rows[i] for i in range(1, 5)] == list(zip(HEAD, RGB))


def test_a_refused_case_leaves_the_tables_as_they_are(tmp_path):
    record(tmp_path, "a", CROP)
    record(tmp_path, "z", (), status="not segmented", review=["a head with its skull"])
    collect_volumes(tmp_path)
    assert list(read_itk_snap(tmp_path / "labels_itksnap.txt")) == [0, 1, 2]


def test_a_folder_without_records_gets_no_table(tmp_path):
    collect_volumes(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["volumes.csv"]


def test_names_with_quotes_and_spaces_stay_one_field():
    assert itk_snap_table(['a "b"']).splitlines()[-1].endswith("\"a 'b'\"")
    assert slicer_table(["a  b\tc"]).splitlines()[-1] == "1 a_b_c 230 159 0 255"


@pytest.mark.parametrize("label, colour", [(1, "#e69f00"), (7, "#0072b2"), (8, "#e69f00"), (15, "#e69f00")])
def test_colours_begin_again_after_the_last(label, colour):
    assert label_colour(label) == colour
