"""What a notebook shows: short in text, whole and harmless in HTML, with a drawing."""

from __future__ import annotations

import base64
import dataclasses
import re
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import matplotlib
import pytest

import taskeff
from taskeff.estimate.family_files import bundled_families

LLAMA = "llama-3.1-8b-instruct"
PLAIN = {"div", "p", "strong", "br", "img", "ul", "li"}
HOSTILE = "<script>alert(1)</script>"
PILOT = {"pilots": [(50, 0.45, 200)], "zero_shot": (0.42, 200), "ceiling": 0.95}
SHOWN = {
    **{name: lambda name=name: taskeff.Calibration.load(name) for name in bundled_families()},
    "reached": lambda: taskeff.predict(LLAMA, 0.65),
    "out of reach": lambda: taskeff.predict(**PILOT),
    "a formula": lambda: taskeff.predict(LLAMA, 0.65, curve="power"),
}


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.found = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("make", SHOWN.values(), ids=SHOWN)
def test_it_is_short_in_text_and_whole_in_html(make):
    shown = make()
    assert repr(shown).startswith(f"<{type(shown).__name__}: ") and len(repr(shown)) < 130
    text = shown._repr_html_()
    tags = Tags(text)
    assert tags.open == [] and {tag for tag, _ in tags.found} <= PLAIN
    (image,) = (attrs for tag, attrs in tags.found if tag == "img")
    kind, _, data = image["src"].partition(",")
    assert kind == "data:image/svg+xml;base64" and image["alt"]
    drawing = base64.b64decode(data)
    assert ET.fromstring(drawing).tag.endswith("svg")
    assert not re.search(rb'href="(?!#)', drawing)
    assert shown._repr_html_() == text


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"cos_low": 0.65},
            "307 labels for 90 %, 80 % interval 65 to 2,700; llama-3.1-8b-instruct",
        ),
        ({"cos_low": 0.65, "curve": "power"}, "1,007 labels for 90 %; llama-3.1-8b-instruct"),
    ],
)
def test_an_estimate_says_its_answer(values, said):
    assert repr(taskeff.predict(LLAMA, **values)) == f"<Estimate: {said}>"


def test_what_cannot_be_reached_is_said():
    assert "90 % not reachable within 5,000 labels" in repr(taskeff.predict(**PILOT))


def test_what_a_family_is_called_is_no_html():
    family = dataclasses.replace(taskeff.Calibration.load(LLAMA), family=HOSTILE, caveat=HOSTILE)
    for shown in (family, taskeff.predict(family, 0.65)):
        assert HOSTILE not in shown._repr_html_() and "&lt;script&gt;" in shown._repr_html_()


def test_a_plot_is_a_figure_and_a_file(tmp_path):
    found = taskeff.predict(LLAMA, 0.65)
    before = dict(matplotlib.rcParams)
    figure = found.plot(tmp_path / "a.svg")
    assert dict(matplotlib.rcParams) == before
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert "307 labels" in labels
    found.plot(tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    with pytest.raises(taskeff.TaskeffError, match=r"c\.pdf"):
        found.plot(tmp_path / "c.pdf")


def test_a_family_shows_its_tasks_or_its_curves():
    drawn = {
        name: set(taskeff.Calibration.load(name).plot().axes[0].get_legend_handles_labels()[1])
        for name in (LLAMA, "generic", "smollm2-135m-instruct")
    }
    assert drawn[LLAMA] == {"line in CoS-Low"}
    assert "likely curve of a new task" in drawn["generic"]
    assert "tasks" in drawn["smollm2-135m-instruct"]


def test_a_family_of_neither_line_nor_curves_has_words_alone():
    few = dataclasses.replace(taskeff.Calibration.load(LLAMA), line=None, priors=())
    with pytest.raises(taskeff.TaskeffError, match="nothing to draw"):
        few.plot()
    assert "nothing to draw" in few._repr_html_() and "<img" not in few._repr_html_()


def test_without_matplotlib_the_words_stay_and_a_plot_names_what_is_missing(monkeypatch):
    found = taskeff.predict(LLAMA, 0.65)
    for name in [*sys.modules]:
        if name.startswith("taskeff.report"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(taskeff.TaskeffError, match="pip install matplotlib"):
        found.plot()
    text = found._repr_html_()
    assert "About 307 labels" in text and "pip install" in text and "<img" not in text
