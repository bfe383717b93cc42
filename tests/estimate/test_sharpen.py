"""What would sharpen an answer: only what can be had, priced, and worth what the draws say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.estimates.predictors import Fold
from taskeff.estimate import words
from taskeff.estimate.advice import Prices, next_pilot
from taskeff.estimate.budget import predict
from taskeff.estimate.calibration import Calibration
from taskeff.estimate.posterior import Pilot, Score
from taskeff.estimate.sharpen import sharpenings
from taskeff.estimate.sibling import Sibling


@pytest.fixture(scope="module")
def calibration(cases):
    return Fold(cases).calibration


def options(calibration, prices=Prices(), **asked):  # noqa: B008 - frozen
    found = predict(calibration, **asked)
    labelled = max((p.budget for p in found.pilots), default=0)
    pilot = next_pilot(found.posterior, found.target, labelled=labelled)
    given = sharpenings(calibration, found, prices=prices, labelled=labelled, next_pilot=pilot)
    assert given == sorted(given, key=lambda option: -option.narrows)
    assert all(0 <= option.narrows <= 1 for option in given)
    return {option.what: option for option in given}


def asked(n_test):
    return {"pilots": (Pilot(50, 0.5, n_test),), "zero_shot": Score(0.3, n_test), "ceiling": 0.9}


def test_only_what_is_not_known_yet_and_what_the_family_can_use(calibration):
    generic = Calibration.load("generic")
    assert set(options(generic, **asked(100))) == {"pilot", "test rows", "sibling"}
    sibling = Sibling("x", "t", generic.cap, {"sibling_area": 0.6, "sibling_share": 0.9})
    assert "sibling" not in options(generic, sibling=sibling, **asked(100))
    assert set(options(calibration, **asked(100))) == {"pilot", "test rows", "CoS-Low"}
    assert set(options(calibration, cos_low=0.3)) == {"pilot"}


def test_a_line_that_says_nothing_is_not_recommended(cases):
    rng = np.random.default_rng(0)
    blind = [replace(case, cos_low=float(rng.uniform(0, 0.7))) for case in cases]
    calibration = Fold(blind).calibration
    assert calibration.mae > calibration.mean_baseline
    assert "CoS-Low" not in options(calibration, **asked(100))


def test_more_test_rows_help_a_poorly_tested_pilot(calibration):
    few, many = (options(calibration, **asked(n))["test rows"] for n in (20, 2000))
    assert (few.labels, many.labels, few.budget) == (20, 2000, 50)
    assert few.narrows > 2 * many.narrows


def test_a_first_pilot_is_paid_with_its_test_rows(calibration):
    prices = Prices(label=0.5, gpu_hour=2, hours_fixed=1)
    pilot = options(calibration, prices, cos_low=0.3)["pilot"]
    assert pilot.labels == pilot.budget + 100 == pilot.cost["labels"]
    assert pilot.cost["money"] == pytest.approx(0.5 * pilot.labels + 2)
    said = words.sharpened(pilot, 0, {"label": 0.5, "gpu_hour": 2.0})
    assert f"fine-tune on {pilot.budget:,} labels" in said and "100 of them to test on" in said
    later = options(calibration, prices, **asked(100))["pilot"]
    assert later.labels == later.budget - 50 == later.cost["labels"]


def test_a_formula_has_nothing_to_sharpen(calibration):
    found = predict(calibration, 0.3, curve="power")
    given = sharpenings(calibration, found, prices=Prices(), labelled=0, next_pilot=None)
    assert given == []
