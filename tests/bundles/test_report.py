"""A run ends with its report, and collecting makes it anew."""

import re
import shutil

import pytest

from .conftest import CONFIGS, SAMPLE, command, run

pytest.importorskip("matplotlib", reason="the report needs matplotlib")


def cases(page):
    return re.findall(r"<h2>(.*?)</h2>", page.read_text())


def test_a_run_ends_with_a_report_of_all_cases_and_failures_and_collecting_makes_it_anew(tmp_path):
    scans, output = tmp_path / "in", tmp_path / "out"
    scans.mkdir()
    for case in ("left", "right"):
        shutil.copy(SAMPLE / "images" / f"icbm152_{case}_4mm.nii.gz", scans)
    (scans / "junk.nii.gz").write_text("no scan")
    run("inference.json", input=str(scans), output_dir=str(output))
    page = output / "report.html"
    assert cases(page) == ["icbm152_left_4mm", "icbm152_right_4mm"]
    assert f"<b>{scans / 'junk.nii.gz'}</b>: the name says .nii.gz, the content is not a gzip file" in page.read_text()
    assert page.read_text().count("<image") == 2 * 3 and 'class="contour"' in page.read_text()
    for path in (page, output / "figures" / "icbm152_left_4mm_seg.svg"):
        path.unlink()
    result = command("collecting", CONFIGS / "inference.json", output_dir=output)
    assert result.returncode == 0 and f"{page} shows 2 case(s)" in result.stdout, result.stdout
    assert cases(page) == ["icbm152_left_4mm", "icbm152_right_4mm"]
    assert page.read_text().count("<image") == 2 * 3 and 'class="contour"' in page.read_text()


def test_a_switch_of_the_report_leaves_predictions_as_they_are(tmp_path):
    """With another value a scan that is done stays done."""
    options = dict(input=SAMPLE / "images" / "icbm152_left_4mm.nii.gz", output_dir=tmp_path)
    result = command("inferring", CONFIGS / "inference.json", **options, report="False")
    assert result.returncode == 0 and not (tmp_path / "report.html").exists(), result.stdout
    result = command("inferring", CONFIGS / "inference.json", **options)
    assert "1 of 1 are done" in result.stdout and cases(tmp_path / "report.html") == ["icbm152_left_4mm"]
