"""The page in a real browser: silent, drawn, and readable on a phone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskeff.report.page import render
from tests.report import fake

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--disable-dev-shm-usage"
)
SIZES = {"desktop": (1280, 900), "phone": (375, 812)}
# What is drawn, by the boxes that the browser gave it; the other width's drawings are hidden.
VISIBLE_PLOTS = """
return [...document.querySelectorAll('svg.plot')]
  .filter(e => e.checkVisibility()).map(e => e.getBoundingClientRect())
  .map(b => [b.width, b.height])
"""
SMALLEST_TEXT = """
return Math.min(...[...document.querySelectorAll('svg.plot text')]
  .filter(e => e.checkVisibility()).map(e => e.getBoundingClientRect().height))
"""
# Texts that a drawing's own edge cuts off.
CUT_OFF = """
return [...document.querySelectorAll('svg.plot')].filter(e => e.checkVisibility()).flatMap(svg => {
  const whole = svg.getBoundingClientRect()
  return [...svg.querySelectorAll('text')].filter(e => {
    const box = e.getBoundingClientRect()
    return box.left < whole.left - 1 || box.right > whole.right + 1
  }).map(e => e.textContent)
})
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None, reason="chromium or chromedriver is not installed"
    ),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    selenium = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    options = selenium.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in FLAGS.split():
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # The driver is named, or selenium would go and look for one to download.
    driver = selenium.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(fake.report()), encoding="utf-8")
    return path.as_uri()


def resize(browser, width: int, height: int) -> None:
    # A window cannot be as narrow as a phone; the emulated screen can.
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def show(browser, address: str, size: str, scheme: str = "light") -> None:
    resize(browser, *SIZES[size])
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.get(address)


@pytest.mark.parametrize("size", SIZES)
def test_the_page_is_silent_drawn_and_no_wider_than_the_screen(
    browser, address: str, size: str, tmp_path: Path
) -> None:
    show(browser, address, size)
    plots = browser.execute_script(VISIBLE_PLOTS)
    assert len(plots) == len(fake.report().tasks) + 3
    assert all(width > 100 and height > 60 for width, height in plots)
    assert browser.execute_script(SMALLEST_TEXT) >= 9
    assert browser.execute_script(CUT_OFF) == []
    # Even with everything folded out.
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    scroll, inner = browser.execute_script(
        "return [document.documentElement.scrollWidth, window.innerWidth]"
    )
    assert scroll <= inner == SIZES[size][0]
    assert browser.get_log("browser") == []
    assert browser.save_screenshot(str(tmp_path / f"{size}.png"))


def test_a_long_hostile_name_does_not_widen_a_phone(browser, tmp_path: Path) -> None:
    name = "<b>" + "very_long_task_name_" * 12
    path = tmp_path / "report.html"
    path.write_text(render(fake.with_name(fake.report(), "web_of_lies", name)), encoding="utf-8")
    show(browser, path.as_uri(), "phone")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 375
    assert browser.execute_script("return document.querySelectorAll('main b').length") == 0
    assert browser.get_log("browser") == []


def test_the_drawings_follow_the_colour_scheme(browser, address: str) -> None:
    script = "return getComputedStyle(document.querySelector('svg.plot text')).fill"
    show(browser, address, "desktop", "light")
    light = browser.execute_script(script)
    show(browser, address, "desktop", "dark")
    assert browser.execute_script(script) != light
