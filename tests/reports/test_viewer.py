"""The interactive report: what it embeds, and the page in headless Chromium with NiiVue where that is at hand."""

import base64
import gzip
import json
import os
import re
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rare_unet_networks.data import CaseRecords
from rare_unet_networks.handlers import ReportSaver
from rare_unet_networks.reports import write_report
from rare_unet_networks.reports.viewer import report_mode, viewer_data

from . import browser
from .conftest import SIDED, add_case

PROGRAM = '(function(a,b){b(a.niivue={})})(this,function(a){a.Niivue=class{};a.text="</script>"});'
NIIVUE = os.environ.get("NIIVUE_FILE")  # node_modules/@niivue/niivue/dist/niivue.umd.js


@pytest.fixture
def program(tmp_path):
    (tmp_path / "niivue.umd.js").write_text(PROGRAM)
    return tmp_path / "niivue.umd.js"


def image(text):
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))


def test_a_case_is_embedded_around_its_labels_on_their_grid_in_8_bits(folder):
    record = add_case(folder, "a")  # 40×30×20 voxels of 1×1×2 mm, labels at 8 to 21, 8 to 15 and 6 to 11
    data = json.loads(viewer_data(record, folder))
    scan, labels = image(data["scan"]), image(data["labels"])
    assert data["names"] == ["anterior", "posterior"]
    # 15 mm more on each side are 15 voxels or 8 slices, up to the border: from 0 to 36, 0 to 29 and 0 to 19.
    assert scan.shape == labels.shape == (37, 30, 20) and scan.get_data_dtype() == labels.get_data_dtype() == np.uint8
    whole = nib.load(folder / "a_seg.nii.gz")
    np.testing.assert_array_equal(labels.dataobj, np.asarray(whole.dataobj)[:37])
    np.testing.assert_array_equal(labels.affine, whole.affine)
    voxels, inside = np.asarray(scan.dataobj), np.asarray(labels.dataobj) > 0
    assert voxels.max() == 255 and voxels[inside].min() > voxels[~inside].max()


def test_a_scan_that_was_moved_has_no_viewer_and_the_log_says_why(folder, caplog):
    record = add_case(folder, "a")
    Path(record["scans"]["image"]["file"]).unlink()
    assert viewer_data(record, folder) == "" and "a: no viewer in the report: " in caplog.text


def test_the_page_has_the_program_its_licence_and_a_button_for_each_case(folder, program):
    pytest.importorskip("matplotlib", reason="the report needs matplotlib")
    for case in ("a", "b"):
        add_case(folder, case)
    page = write_report(folder, "interactive", niivue_file=program).read_text()
    assert page.count('class="open"') == 2 and "Copyright (c) 2021, Niivue" in page
    embedded = PROGRAM.replace("</script>", "<\\/script>")  # which would end the program
    assert page.count(embedded) == 1 and PROGRAM not in page
    assert len(json.loads(re.search(r'id="case-1-volume">(.*?)</script>', page)[1])) == 3
    assert "niivue" not in write_report(folder, "true", niivue_file=program).read_text().lower()


def test_without_the_program_one_line_says_where_it_is(tmp_path, program):
    where = (
        r"report interactive needs --niivue_file with niivue\.umd\.js of the npm package @niivue/niivue \(npm install"
    )
    records = CaseRecords(str(tmp_path), "scan", "model.pt")
    with pytest.raises(ValueError, match=where):
        ReportSaver(records, "interactive")
    (tmp_path / "other.js").write_text("alert(1)")
    with pytest.raises(
        ValueError, match=r"niivue_file must be niivue\.umd\.js of the npm package .*, .*other\.js is not"
    ):
        ReportSaver(records, "interactive", str(tmp_path / "other.js"))
    assert [report_mode(r, program) for r in ("interactive", True, "False")] == ["interactive", "true", "false"]
    with pytest.raises(ValueError, match="'sometimes'"):
        report_mode("sometimes")


@pytest.mark.skipif(browser.EXECUTABLE is None, reason="no Chromium is installed")
@pytest.mark.skipif(NIIVUE is None, reason="NIIVUE_FILE does not name niivue.umd.js of the npm package @niivue/niivue")
def test_the_viewer_shows_one_case_after_the_other_without_network(folder, monkeypatch):
    pytest.importorskip("matplotlib", reason="the report needs matplotlib")
    for case in ("a", "b"):
        add_case(folder, case, SIDED)
    path = write_report(folder, "interactive", niivue_file=NIIVUE)
    software = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]  # WebGL 2
    monkeypatch.setattr(browser, "OPTIONS", [o for o in browser.OPTIONS if o != "--disable-gpu"] + software)
    with browser.Browser() as opened:
        opened.open(path.as_uri())
        for card in ("case-1", "case-0"):
            opened.evaluate(f"document.querySelector('#{card} .open').click()")
            for _ in range(300):
                if opened.evaluate("document.getElementById('viewer').dataset.shown") == card:
                    break
                time.sleep(0.1)
            assert opened.evaluate(f"document.querySelector('#{card} #viewer canvas').checkVisibility()") is True
            assert opened.evaluate(f"document.querySelector('#{card} .open').textContent") == "scroll through"
        if os.environ.get("SCREENSHOT"):
            time.sleep(1)
            opened.screenshot(Path(os.environ["SCREENSHOT"]))
        box = "document.querySelector('#viewer {}').getBoundingClientRect()"
        canvas, tools = (opened.evaluate(f"(b => [b.top, b.bottom])({box.format(name)})") for name in ("canvas", "p"))
        assert canvas[1] - canvas[0] > 400 and canvas[1] <= tools[0] < tools[1]
        opened.evaluate("document.querySelector('#viewer button').click()")
        assert opened.evaluate("document.getElementById('viewer').hidden") is True
        assert {url for url in opened.requests if not url.startswith("data:")} == {path.as_uri()}
        assert opened.errors == []
