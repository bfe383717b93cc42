import argparse
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.estimates.comparison import read_cases
from taskeff.curves.curve import data_efficiency
from taskeff.errors import EstimateError
from taskeff.estimate.adaptive import SCOUTS, TOLERANCE, decide, scout_prior, scouts, tolerances
from tests.estimate.conftest import BUDGETS, CAP, made_up_cases
from tests.estimate.reference import REFERENCE, needs_reference

COSTS = {n: float(n) for n in BUDGETS}


def fit(cases):
    signal = {case.curve.name: case.cos_low for case in cases}
    return scout_prior([case.curve for case in cases], signal, dict.fromkeys(signal, 0.9))


@pytest.fixture(scope="module")
def prior(cases):
    return fit(cases[:10])


def say(prior, measured, **options):
    options = {"costs": COSTS, "cos_low": 0.3, "ceiling": 0.9, **options}
    return decide(prior, measured, BUDGETS, cap=CAP, **options)


def test_rows_too_few_decide_nothing(cases):
    assert fit(cases[:7]) is None
    assert fit(cases[:8]) is not None


def test_the_order_of_scouts_does_not_matter(cases):
    one, other = fit(cases[:10]), fit(cases[:10][::-1])
    assert say(one, {0: 0.3, 50: 0.5}) == say(other, {0: 0.3, 50: 0.5})


def test_scouts_are_those_that_hold_the_line_then_the_first():
    rows = [f"r{i}" for i in range(12)]
    signal = {name: 0.1 + 0.01 * i for i, name in enumerate(rows)} | {"r9": 0.9, "r7": 0.8}
    assert scouts(rows, signal, 4) == ["r0", "r1", "r7", "r9"]
    assert scouts(rows, {}, 4) == rows[:4]
    allowed = tolerances(rows, signal, 0.01)
    assert min(allowed, key=allowed.get) == "r9" and max(allowed.values()) < 0.02
    # Leverages sum to two: the line's two coefficients.
    assert sum((0.01 / t) ** 2 for t in allowed.values()) == pytest.approx(len(rows))
    assert set(tolerances(rows, {}, 0.01).values()) == {0.01}


def test_rows_are_measured_until_they_are_determined(prior):
    """Every row narrows to the tolerance in the end, and what is imputed is off by about that."""
    skipped, off = 0, []
    for case in made_up_cases(46)[10:]:
        seen = {0: case.scores[0]}
        while (said := say(prior, seen, cos_low=case.cos_low)).next_budget is not None:
            assert said.next_budget not in seen and said.auc_sd > TOLERANCE
            seen[said.next_budget] = case.scores[said.next_budget]
        assert set(said.imputed) == set(BUDGETS) - set(seen)
        assert said.auc_sd <= TOLERANCE or not said.imputed
        skipped += len(said.imputed)
        scores = {**seen, **said.imputed}
        ceiling = max(0.9, *scores.values())
        curve = data_efficiency(scores, cap=CAP, ceiling=ceiling, imputed=tuple(said.imputed))
        off.append(curve.auc - case.curve.auc)
    assert skipped >= 2 * len(off)
    assert np.sqrt(np.mean(np.square(off))) <= 1.5 * TOLERANCE
    assert abs(np.mean(off)) <= TOLERANCE / 2


def test_without_cos_low(cases):
    blind = scout_prior([case.curve for case in cases[:10]], {})
    assert say(blind, {0: 0.3}, cos_low=None).next_budget == 50
    with pytest.raises(EstimateError, match="takes no signal"):
        say(blind, {0: 0.3})


def test_a_row_at_its_ceiling_needs_nothing_more(prior):
    said = say(prior, {0: 0.3, 50: 1.0}, ceiling=1.0)
    assert said.next_budget is None and set(said.imputed) == set(BUDGETS) - {50}
    assert all(score == pytest.approx(1.0) for score in said.imputed.values())


def test_tolerance_zero_measures_everything(prior):
    seen = {0: 0.3}
    while (said := say(prior, seen, tolerance=0.0)).next_budget is not None:
        seen[said.next_budget] = 0.3 + 0.05 * len(seen)
    assert set(seen) == {0, *BUDGETS} and said.imputed == {}


def test_imputed_scores_lie_between_their_neighbours(prior):
    said = say(prior, {0: 0.3, 100: 0.5, 1000: 0.7}, tolerance=0.5)
    assert said.next_budget is None
    assert 0.3 <= said.imputed[50] <= 0.5 <= said.imputed[200] <= said.imputed[500] <= 0.7
    assert 0.7 <= said.imputed[2500] <= said.imputed[5000] <= 1.0


def test_the_price_decides_which_is_next(prior):
    cheap = say(prior, {0: 0.3}).next_budget
    flat = dict.fromkeys(BUDGETS, 1.0) | {50: 1e6, 100: 1e6}
    said = say(prior, {0: 0.3}, costs=flat)
    assert cheap == 50 and said.next_budget not in (50, 100)


def test_same_input_same_decision(prior):
    assert say(prior, {0: 0.3, 50: 0.4}) == say(prior, {0: 0.3, 50: 0.4})


@pytest.mark.parametrize(
    ("measured", "costs", "said"),
    [
        ({50: 0.4}, COSTS, "zero-shot"),
        ({0: 0.3, 50: 1.4}, COSTS, "50 labels: the score"),
        ({0: 0.3}, dict.fromkeys(BUDGETS[:-1], 1.0), "budget 5000 has no cost"),
    ],
)
def test_bad_rows(prior, measured, costs, said):
    with pytest.raises(EstimateError, match=said):
        say(prior, measured, costs=costs)


def test_a_row_without_cos_low_is_named():
    with pytest.raises(EstimateError, match="'b' has no CoS-Low"):
        tolerances(["a", "b"], {"a": 0.1})
    with pytest.raises(EstimateError, match="no calibration tasks"):
        scouts([], {})


@pytest.mark.slow
@needs_reference
def test_the_adaptive_grid_on_measured_curves():
    """The figures docs/estimates.md claims, as bounds; four orders of the rows."""
    file = Path(__file__).resolve().parents[2] / "benchmarks" / "adaptive.py"
    spec = importlib.util.spec_from_file_location("benchmark_adaptive", file)
    benchmark = importlib.util.module_from_spec(spec)
    # A dataclass looks its own module up while it is made.
    sys.modules[spec.name] = benchmark
    spec.loader.exec_module(benchmark)
    cases = read_cases(
        REFERENCE / "llama_finetune_results",
        REFERENCE / "ceilings.json",
        REFERENCE / "llama_coslow_auc_digitised.csv",
    )
    rows = [benchmark.row_of(case) for case in cases]
    options = argparse.Namespace(blind=False, scouts=SCOUTS, tolerance=TOLERANCE)
    costs = benchmark.steps(epochs=3.0)
    found = [benchmark.replay(benchmark.shuffled(rows, i), costs, options) for i in range(4)]
    assert np.mean([outcome.cost for outcome in found]) <= 0.6
    assert max(abs(outcome.slope) for outcome in found) <= 0.02
    assert max(abs(outcome.mae) for outcome in found) <= 0.005
