"""The page's structure, safety and determinism, read back as HTML."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from taskeff.report.contents import ReportData
from taskeff.report.page import render
from taskeff.report.sentences import title
from tests.helpers import run_python
from tests.report import fake

HOSTILE = "<script>alert(1)</script>\" onload='x' $\\frac{1}{2}$ & {{ 7*7 }}"
VOID = {"meta", "wbr", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Just enough of a document: tags with attributes, text by element, balance."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.texts[tag][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def data() -> ReportData:
    return fake.report()


@pytest.fixture(scope="module")
def html(data: ReportData) -> str:
    return render(data)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_sections_come_in_the_order_of_a_readers_questions(page: Page) -> None:
    assert page.open == []
    assert page.texts["h1"] == ["How many labels will a new task need?"]
    assert page.texts["p"][1].startswith("What says most of a new task of this family: ")
    assert page.texts["h2"] == [
        "The answer",
        "How far to trust it",
        "The calibration",
        "Every curve",
        "Controls",
        "What evidence is worth here",
        "Held-out tasks",
        "Warnings",
        "Provenance",
    ]


def test_every_task_is_in_the_curves_and_in_a_table(page: Page, data: ReportData) -> None:
    figures = "\n".join(page.texts["figcaption"])
    rows = "\n".join(page.texts["tbody"])
    for task in data.tasks:
        assert task.name in figures
        assert task.name in rows
    for control in data.calibration.controls:
        assert title(control) in rows


def test_the_run_explains_itself(page: Page, data: ReportData) -> None:
    text = page.texts["main"][0]
    for warning in data.calibration.warnings:
        assert warning in text
    for part in ("HuggingFaceTB/SmolLM2-135M-Instruct", "a4732015e8b1", fake.CONFIG, "2.13.0"):
        assert part in text


def test_figures_and_tables_are_accessible(page: Page) -> None:
    for svg in page.all("svg"):
        assert svg.get("aria-label") or svg.get("aria-hidden") == "true"
    assert all("scope" in th for th in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    identifiers = [a["id"] for _, a in page.tags if "id" in a]
    assert len(identifiers) == len(set(identifiers))
    for section in page.all("section"):
        assert section["aria-labelledby"] in identifiers


def test_references_inside_the_drawings_resolve(html: str, page: Page) -> None:
    identifiers = {a["id"] for _, a in page.tags if "id" in a}
    wanted = set(re.findall(r'href="#([^"]+)"', html)) | set(re.findall(r"url\(#([^)]+)\)", html))
    assert wanted and wanted <= identifiers


def test_nothing_is_fetched_and_nothing_runs(html: str, page: Page) -> None:
    assert not page.all("script") and not page.all("img") and not page.all("iframe")
    assert not re.search(r"(src|href)=[\"'](?!#|data:,)", html)
    assert "@import" not in html and not re.search(r"url\((?!#)", html)
    assert not any(name == "style" or name.startswith("on") for _, a in page.tags for name in a)


def test_the_policy_allows_this_style_sheet_alone(html: str, page: Page) -> None:
    css = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert css is not None
    digest = base64.b64encode(hashlib.sha256(css[1].encode()).digest()).decode()
    policy = next(m["content"] for m in page.all("meta") if "http-equiv" in m)
    assert policy is not None
    assert "default-src 'none'" in policy and f"style-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("task", ["web_of_lies", "digits_ascii"])
def test_a_hostile_name_is_only_text(data: ReportData, task: str) -> None:
    hostile = fake.with_name(data, task, HOSTILE)
    hostile = replace(hostile, calibration=replace(hostile.calibration, caveat=HOSTILE))
    text = render(hostile)
    page = Page(text)
    assert "<script" not in text
    assert not page.all("script")
    assert HOSTILE in page.texts["main"][0]
    assert not any(name.startswith("on") for _, a in page.tags for name in a)


def test_unprintable_and_endless_names_are_drawn(data: ReportData) -> None:
    for name in ("a\x00b\x1b", "x" * 500, "数据"):
        Page(render(fake.with_name(data, "digits_ascii", name)))


def test_the_same_data_gives_the_same_bytes(data: ReportData, html: str) -> None:
    assert render(data) == html
    # Another process has another hash seed, and a user may have a matplotlibrc of their own.
    code = (
        "import hashlib, matplotlib; matplotlib.rcParams['font.size'] = 30\n"
        "from tests.report import fake; from taskeff.report.page import render\n"
        "print(hashlib.sha256(render(fake.report()).encode()).hexdigest())"
    )
    other = run_python(code)
    assert other.stdout.strip() == hashlib.sha256(html.encode()).hexdigest()


def test_rendering_needs_neither_torch_nor_ray() -> None:
    code = (
        "import sys, taskeff.report.page\n"
        "print(sorted({'torch', 'ray', 'transformers'} & set(sys.modules)))"
    )
    found = run_python(code)
    assert found.stdout.strip() == "[]"


def test_out_of_reach_and_weakness_reach_the_page(html: str, data: ReportData) -> None:
    assert "not reachable within the cap of 128 labels" in html
    assert "never reached" in html
    weak = replace(data, calibration=replace(data.calibration, mean_baseline=0.001))
    assert "On this family CoS-Low does not beat predicting the mean." in render(weak)


def test_a_run_without_held_out_tasks_still_makes_a_page(data: ReportData) -> None:
    tasks = tuple(task for task in data.tasks if not task.held_out)
    bare = replace(
        data,
        calibration=replace(data.calibration, controls={}),
        tasks=tasks,
        provenance={
            **data.provenance,
            "identity": {**data.provenance["identity"], "revision": None},
            "git_commit": None,
            "cores": None,
        },
    )
    text = render(bare)
    assert "No task was held out" in text
    assert "no git commit" in text


def test_a_held_out_task_without_an_estimate(data: ReportData) -> None:
    tasks = tuple(task for task in data.tasks if not task.held_out)
    text = render(replace(data, tasks=(*tasks, fake.told(problem="outside"))))
    assert "no estimate</strong>: outside." in text
