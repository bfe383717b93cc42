"""The labelling page in a real browser: keys that are pressed, a file that `score` reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from taskeff.config import CosLowConfig
from taskeff.coslow.sheet import FILLED, open_sheet
from taskeff.models import model_config
from taskeff.report.label import write_label_page
from taskeff.run.labelling import score, select
from taskeff.tasks.task import load_spec, load_task
from tests.coslow.test_sheet import hand_out
from tests.report.test_browser import SIZES, browser, pytestmark, show  # noqa: F401 - fixture, marks

HOSTILE = [
    "</script><script>document.title='caught'</script>",
    "<img src=x onerror=\"document.title='caught'\"> &amp; {{ 7 * 7 }}",
    "שלום \u202eevil\u202c \N{FAMILY}\N{ZERO WIDTH JOINER}\N{SEEDLING} \u2028 end",
    "wide" * 5000,
    "many words " * 2000,
]
WIDTH = "return document.documentElement.scrollWidth"
LABELS = "return [...document.querySelectorAll('#choices [aria-pressed=true]')].map(b => b.value)"


def open_page(browser, out: Path, size: str = "desktop") -> None:  # noqa: F811
    show(browser, Path(write_label_page(open_sheet(out))).as_uri(), size)


def text(browser, name: str) -> str:  # noqa: F811
    return browser.execute_script(f"return document.getElementById('{name}').textContent")


def press(browser, *keys: str) -> None:  # noqa: F811
    from selenium.webdriver import ActionChains

    for key in keys:
        ActionChains(browser).send_keys(key).perform()


def downloaded(browser, folder: Path) -> Path:  # noqa: F811
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.wait import WebDriverWait

    where = {"behavior": "allow", "downloadPath": str(folder)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", where)
    browser.find_element(By.ID, "download").click()
    WebDriverWait(browser, 30).until(lambda _: (folder / FILLED).exists())
    return folder / FILLED


def test_from_select_to_a_cos_low(browser, tiny_model, tmp_path):  # noqa: F811
    task = load_task(load_spec("name_gender"), 0)
    truth = {e.text: e.target for e in (*task.train, *task.validation, *task.test)}
    model = model_config(str(tiny_model))
    small = CosLowConfig(n_examples=8, pool_cap=40, max_new_tokens=4, rank=4)
    rows = select(model, "name_gender", tmp_path / "out", small)["rows"]
    open_page(browser, tmp_path / "out")
    for row in rows:
        assert text(browser, "text") == row["text"]
        press(browser, str(row["choices"].index(truth[row["text"]]) + 1))
    assert text(browser, "then") == "All 8 rows are labelled"
    found = downloaded(browser, tmp_path)
    told = {"instruction": load_spec("name_gender").description}
    assert [json.loads(line) for line in found.read_text("utf-8").splitlines()] == [
        {**row, **told, "label": truth[row["text"]]} for row in rows
    ]
    measured = score(model, tmp_path / "out", found)
    found.replace(tmp_path / "out" / FILLED)
    assert score(model, tmp_path / "out") == measured
    assert -1 <= measured["cos_low"] <= 1
    assert browser.get_log("browser") == []


def test_undo_skip_moves_and_what_a_closed_page_keeps(browser, tmp_path):  # noqa: F811
    from selenium.webdriver.common.keys import Keys

    out = hand_out(tmp_path, ["one", "two", "three"])
    open_page(browser, out)
    press(browser, "1")
    assert text(browser, "place") == "Row 2 of 3"
    assert text(browser, "status") == "Row 1: yes. 1 of 3 labelled"
    press(browser, "u")
    assert text(browser, "count") == "0 of 3 labelled"
    assert text(browser, "place") == "Row 1 of 3"
    press(browser, "s", "2", Keys.ARROW_LEFT)
    assert browser.execute_script(LABELS) == ["no"]
    assert text(browser, "count") == "1 of 3 labelled, 1 skipped"
    # The page is closed and made again: place, labels and undo are still there.
    browser.get("about:blank")
    open_page(browser, out)
    assert text(browser, "place") == "Row 2 of 3"
    assert browser.execute_script(LABELS) == ["no"]
    press(browser, "u")
    assert text(browser, "count") == "0 of 3 labelled, 1 skipped"
    # Switched off, a single key does nothing.
    browser.execute_script("document.getElementById('single').checked = false")
    press(browser, "1")
    assert text(browser, "count") == "0 of 3 labelled, 1 skipped"


def test_labels_of_the_file_show_and_are_not_changed_unseen(browser, tmp_path):  # noqa: F811
    out = hand_out(tmp_path, ["first", "second"])
    open_sheet(out).write(0, "no")
    open_page(browser, out)
    assert text(browser, "place") == "Row 2 of 2"
    press(browser, "1")
    browser.find_element("id", "previous").click()
    assert browser.execute_script(LABELS) == ["no"]
    press(browser, "1")
    browser.find_element("id", "previous").click()
    assert text(browser, "note") == "The file says “no”."


def test_free_text_is_typed(browser, tmp_path):  # noqa: F811
    from selenium.webdriver.common.keys import Keys

    out = hand_out(tmp_path, ["eins", "zwei"], choices=None)
    open_page(browser, out)
    press(browser, "sun 1", Keys.ENTER, Keys.ENTER)
    assert text(browser, "status") == "Type a label, or skip the row."
    press(browser, Keys.ESCAPE, "u")
    assert text(browser, "count") == "0 of 2 labelled"
    press(browser, "<b>", Keys.ENTER, "moon", Keys.ENTER)
    lines = downloaded(browser, tmp_path / "down").read_text("utf-8").splitlines()
    assert [json.loads(line)["label"] for line in lines] == ["<b>", "moon"]


def test_many_choices_are_found_by_typing(browser, tmp_path):  # noqa: F811
    from selenium.webdriver.common.keys import Keys

    open_page(browser, hand_out(tmp_path, ["x", "y"], [f"intent {i}" for i in range(30)]))
    browser.find_element("css selector", "#find input").click()
    press(browser, "intent 2", Keys.ENTER)
    assert text(browser, "status") == "Row 1: intent 2. 1 of 2 labelled"


@pytest.mark.parametrize("size", SIZES)
def test_hostile_text_is_text_and_no_wider_than_the_screen(browser, tmp_path, size):  # noqa: F811
    choices = ["</script>", "<b>" + "long" * 60, "עברית"]
    out = hand_out(tmp_path, HOSTILE, choices)
    open_page(browser, out, size)
    browser.execute_script("localStorage.clear()")
    open_page(browser, out, size)
    for shown in HOSTILE:
        assert text(browser, "text") == shown
        assert browser.execute_script(WIDTH) <= SIZES[size][0]
        press(browser, "1")
    assert browser.title == "Label tickets · taskeff"
    assert (
        browser.execute_script("return document.querySelectorAll('main b, main img').length") == 0
    )
    assert browser.get_log("browser") == []
