"""The page of one answer in a real browser: silent, drawn, no wider than a phone."""

from __future__ import annotations

import pytest

from taskeff.report.answer import render
from tests.report.test_answer import calibration, data  # noqa: F401 - fixtures
from tests.report.test_browser import (  # noqa: F401 - a fixture, marks
    CUT_OFF,
    SMALLEST_TEXT,
    VISIBLE_PLOTS,
    browser,
    pytestmark,
    resize,
)


@pytest.mark.parametrize("width", [1280, 400, 360])
def test_it_is_silent_drawn_and_no_wider_than_the_screen(browser, data, tmp_path, width):  # noqa: F811
    path = tmp_path / "answer.html"
    path.write_text(render(data), encoding="utf-8")
    resize(browser, width, 900)
    browser.get(path.as_uri())
    plots = browser.execute_script(VISIBLE_PLOTS)
    assert len(plots) == 2 and all(w > 100 and h > 60 for w, h in plots)
    assert browser.execute_script(SMALLEST_TEXT) >= 9
    assert browser.execute_script(CUT_OFF) == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.get_log("browser") == []
