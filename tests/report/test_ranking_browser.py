"""The ranking's page in a real browser: silent, sorts, filters, opens a curve."""

from __future__ import annotations

import pytest

from taskeff.report.ranking import render
from tests.report.test_browser import browser, pytestmark, show  # noqa: F401 - a fixture, marks
from tests.report.test_ranking import HOSTILE, TARGETS, calibration, rows  # noqa: F401 - fixtures

NAMES = """
return [...document.querySelectorAll('#ranking tbody tr')]
  .filter(r => !r.hidden && r.dataset.name).map(r => r.dataset.name)
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory, rows, calibration):  # noqa: F811
    path = tmp_path_factory.mktemp("ranking") / "ranking.html"
    path.write_text(render(rows, calibration, TARGETS), encoding="utf-8")
    return path.as_uri()


def press(browser, selector: str, number: int = 0) -> None:  # noqa: F811
    browser.execute_script(f"document.querySelectorAll({selector!r})[{number}].click()")


def test_it_sorts_filters_and_opens_a_curve(browser, page):  # noqa: F811
    show(browser, page, "desktop")
    assert browser.execute_script(NAMES) == ["fast", "slow", "nowhere", "waiting"]
    press(browser, ".sort", 1)
    assert browser.execute_script(NAMES) == ["fast", "nowhere", "slow", "waiting"]
    press(browser, ".sort", 3)
    assert browser.execute_script(NAMES)[:2] == ["slow", "fast"]
    press(browser, ".sort", 3)
    assert browser.execute_script(NAMES)[:2] == ["fast", "slow"]
    press(browser, "tr[data-name=slow] .open")
    drawn = "return document.querySelectorAll('.detail polyline, .detail polygon').length"
    assert browser.execute_script(drawn) == 2
    press(browser, "tr[data-name=slow] .open")
    assert browser.execute_script(drawn) == 0
    browser.execute_script(
        "const s = document.getElementById('status'); s.value = 'ranked';"
        "s.dispatchEvent(new Event('change'))"
    )
    assert browser.execute_script(NAMES) == ["fast", "slow"]
    assert browser.execute_script("return document.getElementById('shown').textContent") == (
        "2 of 4 shown"
    )
    assert browser.get_log("browser") == []


def test_hostile_text_is_text_and_a_phone_is_wide_enough(browser, page):  # noqa: F811
    show(browser, page, "phone")
    shown = "return document.querySelector('tr[data-name=waiting] .why').textContent"
    assert browser.execute_script(shown) == HOSTILE
    width = "return document.documentElement.scrollWidth"
    assert browser.execute_script(width) <= 375
    assert browser.get_log("browser") == []
