import pytest

from rare_unet_networks.utils.tables import CaseTable, aligned, rows_there

COLUMNS = ("case", "value")


def rows(path):
    return [(row["case"], row["value"]) for row in rows_there(path, COLUMNS)]


def line(case, value):
    return {"case": case, "value": value}


def test_rows_of_other_cases_stay_and_those_of_a_case_are_replaced(tmp_path):
    path = tmp_path / "out" / "volumes.csv"
    CaseTable(path, COLUMNS).append([line("a", 1.0), line("a", 2.0)])
    table = CaseTable(path, COLUMNS, keep=True)
    table.replace(["b"], [line("b", 3)])
    assert path.read_bytes() == b"case,value\r\na,1.0000\r\na,2.0000\r\nb,3\r\n"
    table.replace(["a"])
    assert rows(path) == [("b", "3")]
    table.replace(["a"], [line("a", 4)])
    table.replace(["b"], [line("b", 5)])
    assert rows(path) == [("a", "4"), ("b", "5")]
    assert [p.name for p in path.parent.iterdir()] == ["volumes.csv"]
    CaseTable(path, COLUMNS)
    assert rows(path) == []


def test_rows_of_a_new_case_are_appended_without_reading_the_others(tmp_path):
    table = CaseTable(tmp_path / "volumes.csv", COLUMNS)
    table.replace(["a"], [line("a", 1)])
    (tmp_path / "volumes.csv").write_text("not read\n")
    table.replace(["b"], [line("b", 2)])
    assert (tmp_path / "volumes.csv").read_bytes() == b"not read\nb,2\r\n"
    (tmp_path / "volumes.csv").unlink()
    table.replace(["c"])  # which has none, and gets none
    assert not (tmp_path / "volumes.csv").exists()


def test_a_line_that_was_cut_short_and_a_spreadsheets_mark_do_no_harm(tmp_path):
    path = tmp_path / "volumes.csv"
    path.write_bytes(b"\xef\xbb\xbfcase,value\r\na,1\r\nb,")
    assert rows(path) == [("a", "1")]
    CaseTable(path, COLUMNS, keep=True).replace(["b"], [line("b", 2)])
    assert path.read_bytes() == b"case,value\r\na,1\r\nb,2\r\n"


@pytest.mark.parametrize("text", ["case,value,comment\na,1,good\n", "case;value\na;1\n"])
def test_a_file_with_other_columns_is_named_and_left_as_it_is(tmp_path, text):
    path = tmp_path / "volumes.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"volumes.csv: expected the columns case, value, got case.+: move it"):
        CaseTable(path, COLUMNS, keep=True)
    assert path.read_text() == text


def test_lines_are_aligned():
    assert aligned([("case", "mm3"), ("a", "12"), ("long name", "")]) == "case       mm3\na          12\nlong name"


@pytest.mark.parametrize("case", ["=1+1", "+1", "-1", "@x", "'=1", "''-x"])
def test_a_name_that_a_spreadsheet_would_run_is_quoted_and_read_back(tmp_path, case):
    path = tmp_path / "volumes.csv"
    CaseTable(path, COLUMNS).append([line(case, -1.5)])
    assert path.read_bytes().split(b"\r\n")[1] == f"'{case},-1.5000".encode()
    assert rows(path) == [(case, "-1.5000")]
    CaseTable(path, COLUMNS, keep=True).replace([case], [line(case, 2)])
    assert rows(path) == [(case, "2")]


@pytest.mark.parametrize("case", ["a=1", "'quoted'", "ä"])
def test_other_names_stay_as_they_are(tmp_path, case):
    CaseTable(tmp_path / "a.csv", COLUMNS).append([line(case, 1)])
    assert f"{case},1".encode() in (tmp_path / "a.csv").read_bytes() and rows(tmp_path / "a.csv") == [(case, "1")]
