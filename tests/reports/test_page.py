"""The page has the cases to review first, escapes what it shows, and says why there is no page or picture."""

import importlib.util
import os
import re

import pytest

from rare_unet_networks.data import prediction_path
from rare_unet_networks.reports import page, write_report
from rare_unet_networks.reports.table import columns_of

from .conftest import SIDED, add_case

needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="the report needs matplotlib"
)


def cells(record, records=None):
    return {column.title: column.cell(record).text for column in columns_of(records or [record])}


def test_columns_are_the_measures_that_a_record_has(folder):
    assert cells(add_case(folder, "a", side="left", doubt=0.256)) == {
        "scan": "a", "resolution mm": "1×1×2", "route": "level 0, left", "anterior mm³": "570",
        "posterior mm³": "570", "total mm³": "1140", "doubt": "0.26", "review": "",
    }  # fmt: skip


def test_volumes_of_a_whole_head_are_those_of_its_sides_and_missing_measures_are_empty(folder):
    head = add_case(
        folder, "head", SIDED, asymmetry=-1.23, expected_dice={"mean": 0.817, "error": 0.03},
        route={"is_resampled": True}, review=["cut", "empty"],
    )  # fmt: skip
    head["volumes"]["right_anterior"]["mm3_fine"] = None  # then the volume on the scan's own grid counts
    other = add_case(folder, "other", SIDED)
    assert cells(head, [head, other]) == {
        "scan": "head", "resolution mm": "1×1×2", "route": "level 0, resampled", "left mm³": "1140",
        "right mm³": "1146", "total mm³": "2286", "asymmetry %": "-1.2", "expected Dice": "0.82",
        "review": "cut; empty",
    }  # fmt: skip
    assert [cells(other, [head, other])[key] for key in ("asymmetry %", "expected Dice")] == ["", ""]


@needs_matplotlib
def test_cases_to_review_come_first_and_text_is_escaped(folder):
    for case, review in (("b", []), ("a", []), ("c", ["<script>x</script>"]), ("<i>&", ["cut"])):
        add_case(folder, case, review=review)
    assert write_report(folder, "true", [("/in/d.nii.gz", "the file is <damaged>")]) == folder / "report.html"
    text = (folder / "report.html").read_text()
    assert re.findall(r"<h2>(.*?)</h2>", text) == ["&lt;i&gt;&amp;", "c", "a", "b"]
    assert "<b>4</b>scans" in text and "<b>2</b>to review" in text and "<b>1</b>failed" in text
    assert "<b>/in/d.nii.gz</b>: the file is &lt;damaged&gt;" in text
    assert "<script>x" not in text and text.count("<script>") == 1
    assert not list(folder.glob(".*claim"))
    assert len(text) < 3_000_000 + 4 * 200_000


@needs_matplotlib
def test_a_picture_is_drawn_once_and_again_after_its_prediction(folder, caplog):
    record = add_case(folder, "a")
    write_report(folder)
    figure = folder / "figures" / "a_seg.svg"
    figure.write_text("<svg>kept</svg>")
    os.remove(record["scans"]["image"]["file"])
    write_report(folder)
    assert "<svg>kept</svg>" in (folder / "report.html").read_text() and "no picture" not in caplog.text
    written = figure.stat().st_mtime_ns + 1
    os.utime(prediction_path("a", "scan", folder), ns=(written, written))
    write_report(folder)
    assert re.search(r"a: no picture in the report: .*a\.nii\.gz: there is no such file", caplog.text)
    assert "no picture, see the log" in (folder / "report.html").read_text()


def test_without_matplotlib_one_line_says_how_to_get_it(folder, caplog, monkeypatch):
    add_case(folder, "a")
    monkeypatch.setattr(page, "find_spec", lambda name: None)
    with caplog.at_level("INFO"):
        assert write_report(folder) is None
    assert caplog.messages == [
        "no report.html: its pictures need matplotlib (pip install 'rare-unet-networks[report]')"
    ]
    assert not (folder / "report.html").exists()


def test_no_report_is_written_if_none_is_asked_for_and_another_word_is_an_error(folder):
    add_case(folder, "a")
    assert write_report(folder, "false") is None and not (folder / "report.html").exists()
    with pytest.raises(ValueError, match="expected true or false, got 'nice'"):
        write_report(folder, "nice")


def test_a_folder_without_cases_gets_no_page(tmp_path):
    assert write_report(tmp_path) is None and not list(tmp_path.iterdir())
