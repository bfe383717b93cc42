import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.estimates.predictors import Fold
from taskeff.errors import EstimateError
from taskeff.estimate.advice import Prices, advise, next_pilot
from taskeff.estimate.budget import Pilot, predict, target_share
from taskeff.estimate.calibration import Calibration
from taskeff.estimate.posterior import Score, interval, update
from taskeff.estimate.rounding import high_end, low_end
from taskeff.estimate.words import headline, uncertainty
from tests.estimate.conftest import BUDGETS, CAP


@pytest.fixture(scope="module")
def calibration(cases):
    return Fold(cases).calibration


@given(st.floats(-0.5, 1), st.floats(0.01, 1))
def test_power_is_the_published_number(cos_low, target):
    area = 0.545 * cos_low + 0.31
    llama = Calibration.load("llama-3.1-8b-instruct")
    found = predict(llama, cos_low, target=target, curve="power")
    assert found.labels_needed == pytest.approx(5000 ** (target ** (area / (1 - area))), rel=1e-12)
    assert found.auc == pytest.approx(area)
    assert found.to_dict()["interval"] is None and found.interval_reason


def test_published_example():
    found = predict(Calibration.load("llama-3.1-8b-instruct"), 0.65, target=0.9, curve="power")
    assert found.labels_needed == pytest.approx(1006.908554, abs=1e-6)
    assert any("unverified" in warning for warning in found.warnings)


def test_estimates_are_json_seeded_and_nested(calibration):
    found = predict(calibration, 0.3, zero_shot=0.3, ceiling=0.9)
    again = predict(calibration, 0.3, zero_shot=0.3, ceiling=0.9)
    assert json.loads(json.dumps(found.to_dict())) == again.to_dict()
    assert found.to_dict()["seed"] == 0
    low50, _ = found.intervals[0.5]
    low80, high80 = found.intervals[0.8]
    low90, _ = found.intervals[0.9]
    assert low90 <= low80 <= low50
    assert high80 is None or low80 <= found.labels_needed <= high80


def test_without_pilots_the_area_is_the_regressions(calibration):
    found = predict(calibration, 0.3)
    expected = calibration.predict_auc(0.3)
    assert (found.auc, found.auc_intervals) == (expected.auc, expected.interval)
    assert any("no a-priori ceiling" in warning for warning in found.warnings)


def test_more_asked_needs_more(calibration):
    pilots = (Pilot(50, 0.5),)
    needed = [
        predict(calibration, 0.3, target=t, pilots=pilots, zero_shot=0.3, ceiling=0.9)
        for t in (0.5, 0.7, 0.8)
    ]
    assert all(a.labels_needed < b.labels_needed for a, b in pairwise(needed))
    assert all(a.reach_probability >= b.reach_probability for a, b in pairwise(needed))


def test_pilots_move_and_narrow(calibration):
    def width(*pilots):
        found = predict(calibration, 0.3, pilots=pilots, zero_shot=0.3, ceiling=0.9)
        low, high = found.auc_intervals[0.8]
        return found.auc, high - low

    good, bad = width(Pilot(50, 0.75)), width(Pilot(50, 0.32))
    assert good[0] > bad[0] + 0.1
    assert good[1] < width()[1] / 2 and bad[1] < width()[1]


def test_small_tests_say_less(calibration):
    def auc(n_test):
        pilots = (Pilot(50, 0.8, n_test),)
        return predict(calibration, 0.1, pilots=pilots, zero_shot=0.3, ceiling=0.9).auc

    assert auc(5) < auc(5000)


def test_rough_seeds_say_less(calibration):
    """A family whose single runs scatter more moves less on the same pilot."""
    from dataclasses import replace

    def auc(spread):
        shape = replace(calibration.prior.shape, seed_spread=spread)
        prior = replace(calibration.prior, shape=shape)
        pilots = [Pilot(50, 0.8, 5000)]
        known = {"cap": CAP, "pilots": pilots, "zero_shot": Score(0.3), "ceiling": 0.9}
        # Away from the pilot itself, which is what was measured.
        return float(np.median(update(prior, {"cos_low": 0.1}, **known).at(np.array([0.7]))))

    assert auc(0.3) < auc(0.0)


def test_a_task_that_stays_flat_is_not_reachable(calibration):
    pilots = tuple(Pilot(n, 0.3) for n in BUDGETS[:-1])
    found = predict(calibration, 0.3, pilots=pilots, zero_shot=0.3, ceiling=0.9)
    assert not found.reachable and found.labels_needed is None
    assert found.to_dict()["interval"][1] is None


def test_a_curve_is_not_pinned_to_a_noisy_pilot(calibration):
    """At the pilot's own budget the score stays uncertain by what its test rows leave open."""
    known = {"cap": CAP, "zero_shot": Score(0.3, 10**6), "ceiling": 0.9}
    at = np.log2([50.0]) / np.log2(CAP)

    def scores(n_test, **options):
        found = update(
            calibration.prior, {"cos_low": 0.3}, pilots=[Pilot(50, 0.6, n_test)], **known, **options
        )
        return 0.3 + 0.7 * found.at(at)[:, 0] * found.top

    # 30 of 50 right leave .07 of the score open, of which the curve takes some; a million nothing.
    assert 0.02 < np.std(scores(50)) < 0.07
    assert np.std(scores(10**6)) < 0.003
    assert np.median(scores(10**6)) == pytest.approx(0.6, abs=0.01)
    assert np.std(scores(50, as_measured=True)) < 1e-9


def test_the_zero_shot_score_has_its_own_noise(calibration):
    def width(n_test):
        options = {"pilots": (Pilot(50, 0.5, 10**6),), "ceiling": 0.9}
        found = predict(calibration, 0.3, zero_shot=Score(0.4, n_test), **options)
        low, high = found.auc_intervals[0.8]
        return high - low

    assert width(20) > 1.05 * width(10**5)


def test_evidence_is_optional_and_adds_up(calibration):
    """CoS-Low, a pilot or both; what is assumed is said; nothing at all is refused."""
    known = {"zero_shot": Score(0.3, 500), "ceiling": 0.9, "pilots": (Pilot(50, 0.5, 500),)}
    blind, both = predict(calibration, **known), predict(calibration, 0.6, **known)
    assert blind.cos_low is None and both.auc != blind.auc
    assert not any("assumed" in w or "unverified" in w for w in blind.warnings)
    silent = predict(calibration, zero_shot=0.3, ceiling=0.9, pilots=(Pilot(50, 0.5),))
    assert any("1000 test rows are assumed behind zero-shot" in w for w in silent.warnings)
    with pytest.raises(EstimateError, match="nothing is known"):
        predict(calibration, zero_shot=0.3)
    with pytest.raises(EstimateError, match="formula of CoS-Low"):
        predict(calibration, curve="power", **known)


@pytest.mark.parametrize("ceiling", [0.5, 0.7, 0.9, 1.0])
@pytest.mark.parametrize("score", [0.32, 0.45, 0.7])
def test_the_words_agree(calibration, score, ceiling):
    pilots = (Pilot(50, score, 200), Pilot(500, score, 200)) if score > 0.4 else ()
    options = {"zero_shot": 0.3, "ceiling": ceiling, "pilots": pilots}
    if pilots and ceiling <= score:
        return
    found = predict(calibration, 0.1, **options)
    said, sure = headline(found), uncertainty(found)
    chance = found.reach_probability
    assert ("about" in said.lower()) == (chance >= 0.005)
    assert ("fall short" in said) == (0.005 <= chance < 0.5)
    assert (f"{100 * chance:.0f} %" in said) == (0.005 <= chance < 0.995)
    low, high = found.intervals[0.8]
    assert ("or more" in sure or "more than" in sure) == (high is None)
    if high is not None:
        assert f"between {low_end(low):,} and {high_end(high, found.cap):,}" in sure


def test_words_of_a_formula():
    found = predict(Calibration.load("llama-3.1-8b-instruct"), 0.65, curve="power")
    assert headline(found).startswith("About 1,007 labels reach 90 %")
    assert uncertainty(found).startswith("There is no interval: ")


def test_a_target_reached_by_a_pilot_is_there(calibration):
    pilots = (Pilot(50, 0.5), Pilot(100, 0.97))
    found = predict(calibration, 0.3, pilots=pilots, zero_shot=0.3, ceiling=0.9, target=0.8)
    assert 50 < found.labels_needed <= 100


@pytest.mark.parametrize("power", [True, False])
def test_curves_for_plots(calibration, power):
    found = predict(calibration, 0.3, curve="power" if power else None)
    drawn = found.curve([1, 50, 500, 5000])
    assert len(drawn["share"]) == 4 and drawn["share"] == sorted(drawn["share"])
    for ends in drawn["band"].values():
        assert all(
            low <= mid + 1e-9 and mid <= high + 1e-9
            for low, mid, high in zip(ends["low"], drawn["share"], ends["high"])
        )


@pytest.mark.parametrize("ceiling", [0.7, 0.9, 1.0])
def test_one_curve_crosses_every_target_at_its_labels(calibration, ceiling):
    budgets = np.geomspace(1, CAP, 400)
    for target in (0.3, 0.5, 0.8, 0.9, 0.95):
        found = predict(calibration, 0.2, target=target, zero_shot=0.3, ceiling=ceiling)
        share = np.array(found.curve(budgets.tolist())["share"])
        if found.labels_needed is None:
            assert share.max() < target
        else:
            at = float(budgets[np.argmax(share >= target - 1e-9)])
            assert at == pytest.approx(found.labels_needed, rel=0.03)


@given(st.floats(0, 0.6), st.floats(0.05, 0.35), st.floats(0.01, 1))
def test_target_conversion(zero_shot, room, share):
    ceiling = zero_shot + room
    score = zero_shot + share * room
    if score > zero_shot:
        assert target_share(score, zero_shot=zero_shot, ceiling=ceiling) == pytest.approx(share)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"target": 0.0}, "target 0.0"),
        ({"target": 1.2}, "target 1.2"),
        ({"target": float("nan")}, "target nan"),
        ({"pilots": (Pilot(50, 0.5),)}, "zero-shot"),
        ({"pilots": (Pilot(50, 1.5),), "zero_shot": 0.1}, "50 labels: the score"),
        ({"pilots": (Pilot(50, float("nan")),), "zero_shot": 0.1}, "50 labels"),
        ({"pilots": (Pilot(9000, 0.5),), "zero_shot": 0.1}, "9000"),
        ({"pilots": (Pilot(50, 0.5), Pilot(50, 0.6)), "zero_shot": 0.1}, "twice"),
        ({"pilots": (Pilot(50, 0.5, 0),), "zero_shot": 0.1}, "n_test"),
        ({"zero_shot": 0.5, "ceiling": 0.4}, "ceiling 0.4"),
        ({"zero_shot": 1.0}, "zero-shot score 1.0"),
    ],
)
def test_bad_questions(calibration, options, said):
    with pytest.raises(EstimateError, match=said):
        predict(calibration, 0.3, **options)


def test_the_published_formula_takes_no_pilots():
    llama = Calibration.load("llama-3.1-8b-instruct")
    with pytest.raises(EstimateError, match="cannot use pilots with curve 'power'"):
        predict(llama, 0.3, pilots=(Pilot(50, 0.5),), zero_shot=0.1, curve="power")


def test_intervals_hold_their_share_with_and_without_an_end():
    values = np.arange(100.0)
    assert interval(values, 0.8) == (9.0, 89.0)
    values[85:] = np.inf
    low, high = interval(values, 0.8)
    assert high is None and np.mean(values >= low) == pytest.approx(0.8, abs=0.011)


@settings(max_examples=25)
@given(st.floats(0, 0.7), st.integers(0, 10))
def test_likely_curves_are_curves(calibration, cos_low, seed):
    found = update(calibration.prior, {"cos_low": cos_low}, cap=CAP, seed=seed, draws=200)
    assert np.all(found.share[:, 0] == 0) and np.all(np.diff(found.share, axis=1) >= 0)
    assert np.all(found.share <= 1) and np.all((found.auc >= 0) & (found.auc <= 1))
    x = found.crossing(0.5)
    for row, at in list(zip(found.share, x))[:20]:
        if math.isfinite(at):
            assert np.interp(at, found.x, row) == pytest.approx(0.5, abs=1e-9)
        else:
            assert row[-1] < 0.5


def test_cost_of_labels_and_hours():
    cost = Prices(0.5, 2.0, hours_per_label=0.01, hours_fixed=1.0).cost(100)
    assert cost == {"labels": 100, "gpu_hours": 2.0, "money": 54.0}
    with pytest.raises(EstimateError, match="label"):
        Prices(-1.0)


def test_advice_follows_the_prices(calibration):
    options = {"cap": CAP, "zero_shot": Score(0.3, 10**6), "ceiling": 0.9}
    found = update(calibration.prior, {"cos_low": 0.3}, **options)
    assert advise(found, 0, prices=Prices(1.0), value=0.0).action == "stop"
    dear = advise(found, 0, prices=Prices(1.0), value=500.0).labels
    cheap = advise(found, 0, prices=Prices(0.01), value=500.0).labels
    assert dear < cheap <= CAP
    done = advise(found, CAP, prices=Prices(0.0), value=1.0)
    assert (done.action, done.more, done.expected_gain) == ("stop", 0, 0.0)
    flat = update(
        calibration.prior, {"cos_low": 0.3}, pilots=[Pilot(n, 0.9) for n in BUDGETS[:3]], **options
    )
    assert advise(flat, 200, prices=Prices(1.0), value=2000.0).action == "stop"
    with pytest.raises(EstimateError, match="labelled"):
        advise(found, CAP + 1, prices=Prices(1.0), value=1.0)


def test_next_pilot_is_ahead(calibration):
    found = update(calibration.prior, {"cos_low": 0.3}, cap=CAP)
    assert next_pilot(found, 0.9) in BUDGETS
    assert next_pilot(found, 0.9, labelled=200) > 200
    with pytest.raises(EstimateError, match="no next pilot"):
        next_pilot(found, 0.9, labelled=CAP)
