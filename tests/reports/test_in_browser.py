"""The page in headless Chromium: it loads without network, sorts, filters and shows its pictures."""

import pytest

from rare_unet_networks.reports import write_report

from .browser import EXECUTABLE, Browser
from .conftest import SIDED, add_case

pytest.importorskip("matplotlib", reason="the report needs matplotlib")
if EXECUTABLE is None:
    pytest.skip("no Chromium is installed", allow_module_level=True)

NAMES = "[...document.querySelectorAll('{}')].filter(e => e.checkVisibility()).map(e => e.textContent)"
TABLE, CARDS = NAMES.format("#scans tbody td:first-child"), NAMES.format("#cases h2")
IMAGES = """Promise.all([...document.querySelectorAll('.picture image')].map(async image => {
  const copy = new Image();
  copy.src = image.getAttribute('href');
  await copy.decode();
  const box = image.getBoundingClientRect();
  return copy.naturalWidth > 5 && box.width > 50 && box.height > 50;
}))"""


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    for case, dice, review in (("a2", 0.9, []), ("a10", 0.5, ["cut"]), ("b", 0.7, []), ("c", None, ["empty"])):
        add_case(folder, case, SIDED, expected_dice=dice, review=review)
    path = write_report(folder)
    with Browser() as browser:
        browser.open(path.as_uri())
        yield browser, path


def click(browser, heading):
    browser.evaluate(
        f"[...document.querySelectorAll('#scans th button')].find(b => b.textContent == '{heading}').click()"
    )


def test_it_loads_nothing_else_and_shows_every_picture(opened):
    browser, path = opened
    assert {url for url in browser.requests if not url.startswith("data:")} == {path.as_uri()}
    assert browser.evaluate(IMAGES) == [True] * 4 * 6  # two sides of three planes
    box = "(b => b.width > 5 && b.height > 5)(document.querySelector('.picture .contour').getBoundingClientRect())"
    assert browser.evaluate(box) is True
    assert browser.errors == []


def test_it_sorts_numbers_and_names_in_table_and_cards(opened):
    browser, _ = opened
    assert browser.evaluate(TABLE) == browser.evaluate(CARDS) == ["a10", "c", "a2", "b"]  # to review first
    for heading, order in (
        ("expected Dice", ["a2", "b", "a10", "c"]),  # the largest first, the missing one last
        ("expected Dice", ["c", "a10", "b", "a2"]),
        ("scan", ["a2", "a10", "b", "c"]),  # 2 before 10
        ("scan", ["c", "b", "a10", "a2"]),
        ("review", ["a10", "c", "b", "a2"]),
    ):
        click(browser, heading)
        assert browser.evaluate(TABLE) == browser.evaluate(CARDS) == order, heading
    assert browser.evaluate("document.querySelector('th[aria-sort]').textContent") == "review"
    assert browser.errors == []


def test_it_filters_and_hides_contours(opened):
    browser, _ = opened
    click(browser, "scan")
    browser.evaluate("document.getElementById('flagged').click()")
    assert browser.evaluate(TABLE) == browser.evaluate(CARDS) == ["a10", "c"]
    type_text = "const s = document.getElementById('search'); s.value = '{}'; s.dispatchEvent(new Event('input'))"
    browser.evaluate(f"(() => {{ {type_text.format('A1')} }})()")
    assert browser.evaluate(TABLE) == browser.evaluate(CARDS) == ["a10"]
    browser.evaluate(f"(() => {{ {type_text.format('')} }})()")
    browser.evaluate("document.getElementById('flagged').click()")
    shown = "[...document.querySelectorAll('.contour')].filter(c => c.checkVisibility()).length"
    number = browser.evaluate(shown)
    browser.evaluate("document.querySelector('.picture').dispatchEvent(new MouseEvent('click', {bubbles: true}))")
    assert 0 < browser.evaluate(shown) < number  # of this picture only
    browser.evaluate("document.getElementById('contours').click()")
    assert browser.evaluate(shown) == 0
    assert browser.errors == []
