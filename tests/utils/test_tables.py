import pytest

from rare_unet_networks.utils.tables import aligned, append_rows, read_rows, write_rows

COLUMNS = ("case", "value")


def test_rows_are_written_anew_and_appended(tmp_path):
    path = tmp_path / "out" / "table.csv"
    write_rows(path, COLUMNS, [{"case": "old", "value": 1}])
    write_rows(path, COLUMNS)
    append_rows(path, COLUMNS, [{"case": "a", "value": 1.0}, {"case": "a", "value": 2}])
    assert path.read_bytes() == b"case,value\r\na,1.0000\r\na,2\r\n"
    assert read_rows(path, COLUMNS) == [{"case": "a", "value": "1.0000"}, {"case": "a", "value": "2"}]
    assert [p.name for p in path.parent.iterdir()] == ["table.csv"]


def test_a_line_that_was_cut_short_and_a_spreadsheets_mark_do_no_harm(tmp_path):
    path = tmp_path / "table.csv"
    assert read_rows(path, COLUMNS) == []
    path.write_bytes(b"\xef\xbb\xbfcase,value\r\na,1\r\nb,")
    assert read_rows(path, COLUMNS) == [{"case": "a", "value": "1"}]


def test_more_columns_are_read_and_missing_ones_are_an_error(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("case,comment,value\na,good,1\n")
    assert read_rows(path, COLUMNS) == [{"case": "a", "comment": "good", "value": "1"}]
    path.write_text("case;value\na;1\n")
    with pytest.raises(ValueError, match=r"table.csv: expected the columns case, value, got case;value: move it"):
        read_rows(path, COLUMNS)


def test_lines_are_aligned():
    assert aligned([("case", "mm3"), ("a", "12"), ("long name", "")]) == "case       mm3\na          12\nlong name"


@pytest.mark.parametrize("case", ["=1+1", "+a", "-a", "@x", "'=1", "''-x"])
def test_a_name_that_a_spreadsheet_would_run_is_quoted_and_read_back(tmp_path, case):
    path = tmp_path / "volumes.csv"
    write_rows(path, COLUMNS, [{"case": case, "value": -1.5}])
    assert path.read_bytes().split(b"\r\n")[1] == f"'{case},-1.5000".encode()
    assert read_rows(path, COLUMNS) == [{"case": case, "value": "-1.5000"}]
    write_rows(path, COLUMNS, read_rows(path, COLUMNS))
    assert read_rows(path, COLUMNS) == [{"case": case, "value": "-1.5000"}]


@pytest.mark.parametrize("case", ["a=1", "'quoted'", "ä", "-1"])
def test_other_names_stay_as_they_are(tmp_path, case):
    append_rows(tmp_path / "a.csv", COLUMNS, [{"case": case, "value": 1}])
    assert (tmp_path / "a.csv").read_bytes() == f"{case},1\r\n".encode()
