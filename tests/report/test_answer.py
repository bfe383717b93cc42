"""The page of one answer: the console's words, every number of it, nothing fetched or run."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from benchmarks.estimates.predictors import Fold
from taskeff.estimate import words
from taskeff.estimate.advice import Prices, outlook
from taskeff.estimate.budget import predict
from taskeff.estimate.posterior import Pilot, Score
from taskeff.estimate.sharpen import sharpenings
from taskeff.report import sentences
from taskeff.report.answer import AnswerData, reached, render
from tests.estimate.conftest import made_up_cases
from tests.helpers import run_cli
from tests.report import fake
from tests.report.test_page import HOSTILE, Page

PRICES = Prices(label=0.5, gpu_hour=2.0, hours_per_label=0.001)


def answered(calibration, *, prices=PRICES, value=3000.0, task="colours", **asked) -> AnswerData:
    found = predict(calibration, **asked)
    labelled = max((p.budget for p in found.pilots), default=0)
    further = outlook(found, prices=prices, value=value, labelled=labelled)
    return AnswerData(
        calibration,
        found,
        task=task,
        outlook=further,
        value=value,
        asked=asked,
        options=sharpenings(
            calibration,
            found,
            prices=prices,
            labelled=labelled,
            next_pilot=further["next_pilot"],
        ),
        sources={"Pilots": "pilots.json"},
    )


PILOTS = (Pilot(50, 0.5, 200), Pilot(200, 0.62))


@pytest.fixture(scope="module")
def calibration():
    return Fold(made_up_cases(14)).calibration


@pytest.fixture(scope="module")
def data(calibration) -> AnswerData:
    asked = {"zero_shot": Score(0.3, 200), "ceiling": 0.9, "pilots": PILOTS}
    return answered(calibration, cos_low=0.3, **asked)


@pytest.fixture(scope="module")
def html(data) -> str:
    return render(data)


@pytest.fixture(scope="module")
def page(html) -> Page:
    return Page(html)


def test_the_words_are_the_consoles(page, data) -> None:
    text, prices = page.texts["main"][0], data.outlook["prices"]
    said = [words.headline(data.estimate), words.uncertainty(data.estimate)]
    said += [words.efficiency(data.estimate), words.advised(data.outlook["advice"], prices)]
    labelled = data.outlook["labelled"]
    said += [words.sharpened(option, labelled, prices) for option in data.options]
    assert len(data.options) >= 2
    for sentence in (*said, *data.estimate.warnings):
        assert sentence in text


def test_sections_come_in_the_order_of_a_readers_questions(page) -> None:
    assert page.open == []
    assert page.texts["h2"] == [
        "The answer",
        "How far to trust it",
        "The likely curve",
        "Where to stop",
        "What each piece of evidence adds",
        "What would sharpen it most",
        "Provenance",
    ]


def test_the_table_of_stops_advises_what_the_advice_does(page, data) -> None:
    best = min(data.stops, key=lambda stop: stop.in_all(3000.0))
    assert best.labels == data.outlook["advice"]["labels"]
    chances = [reached(data.estimate, stop.labels) for stop in data.stops]
    assert chances == sorted(chances)
    assert chances[-1] == pytest.approx(data.estimate.reach_probability)
    rows = page.texts["tr"]
    assert any(f"{best.labels:,}" in row and f"{best.in_all(3000.0):,.2f}" in row for row in rows)


def test_every_piece_is_shown_alone_and_left_out(calibration, page, data) -> None:
    assert [words.evidence(piece) for piece in data.pieces] == [
        "CoS-Low",
        "pilot at 50 labels",
        "pilot at 200 labels",
    ]
    asked = {"zero_shot": Score(0.3, 200), "ceiling": 0.9}
    without = predict(calibration, 0.3, pilots=PILOTS[:1], **asked)
    alone = predict(calibration, None, pilots=PILOTS[1:], **asked)
    last = data.pieces[-1]
    assert last.without.to_dict() == without.to_dict() and last.alone.to_dict() == alone.to_dict()
    assert all(words.evidence(piece) in "".join(page.texts["th"]) for piece in data.pieces)


def test_nothing_is_fetched_and_nothing_runs(html, page) -> None:
    assert not page.all("script") and not page.all("img") and not page.all("iframe")
    assert not re.search(r"(src|href)=[\"'](?!#|data:,)", html)
    assert not any(name == "style" or name.startswith("on") for _, a in page.tags for name in a)
    assert all("scope" in th for th in page.all("th"))
    identifiers = {a["id"] for _, a in page.tags if "id" in a}
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= identifiers


def test_hostile_names_are_only_text(data) -> None:
    estimate = replace(data.estimate, family=HOSTILE, warnings=(HOSTILE,))
    page = Page(render(replace(data, estimate=estimate, task=HOSTILE, sources={"Pilots": HOSTILE})))
    assert not page.all("script") and page.texts["main"][0].count(HOSTILE) == 3


def test_the_same_answer_gives_the_same_bytes(data, html) -> None:
    assert render(data) == html


def test_an_answer_of_a_formula_is_a_page_too(calibration) -> None:
    page = Page(render(answered(calibration, cos_low=0.3, curve="power", value=None, task="")))
    assert "Where to stop" not in page.texts["h2"]
    assert "All rests on one piece: CoS-Low." in page.texts["main"][0]


def test_the_page_says_what_works_on_the_family() -> None:
    family = fake.report().calibration
    text = Page(render(answered(family, cos_low=0.3, value=None))).texts["main"][0]
    assert sentences.works(family) in text


def test_predict_writes_the_page(calibration, tmp_path, monkeypatch, capsys) -> None:
    calibration.save(tmp_path / "family.json")
    asked = ("predict", "--family", str(tmp_path / "family.json"), "--cos-low", "0.3")
    code, out, _ = run_cli(monkeypatch, capsys, *asked, "--html", str(tmp_path / "a.html"))
    text = Page((tmp_path / "a.html").read_text(encoding="utf-8")).texts["main"][0]
    assert code == 0 and out.splitlines()[0] in text
    code, _, err = run_cli(
        monkeypatch, capsys, *asked, "--html", str(tmp_path / "family.json" / "a.html")
    )
    assert code == 2 and "cannot write" in err and "a.html: " in err
