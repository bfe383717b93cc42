import sys
import types

import numpy as np
import pytest

from benchmarks.estimates import lc_pfn
from benchmarks.estimates.predictors import Fold, Question
from taskeff.estimate.posterior import Pilot, Score


def test_without_the_package_there_is_a_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "lcpfn", None)
    predictor, reason = lc_pfn.load()
    assert predictor is None and "not installed" in reason


def test_weights_that_do_not_load_are_a_reason(monkeypatch):
    def broken():
        raise OSError("no network")

    monkeypatch.setitem(sys.modules, "lcpfn", types.SimpleNamespace(LCPFN=broken))
    predictor, reason = lc_pfn.load()
    assert predictor is None and "no network" in reason


def test_a_straight_line_comes_back_as_one(cases):
    """A model that continues the line through the pilots, alike in every quantile."""

    def straight(x, y, at):
        slope, start = np.polyfit(x, y, 1)
        return np.tile((start + slope * at)[:, None], (1, len(lc_pfn.CHANCES)))

    predictor = lc_pfn.fitter(straight)(Fold(cases[:10]))
    half = round(5000**0.5)
    found = predictor(Question(0.3, Score(0.1), 0.9, (Pilot(half, 0.5),), 0.75))
    assert found.auc == pytest.approx(0.5, abs=0.01)
    assert np.log(found.labels) / np.log(5000) == pytest.approx(0.75, abs=0.011)
    assert found.reach == 1.0
