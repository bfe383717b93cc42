"""Families whose curves are no Beta curves at all: the intervals must hold there too.

Nothing of the estimate is fitted to one family beyond what its own calibration does; two made-up
families, unlike each other and unlike the measured one, check that.
"""

import math

import numpy as np
import pytest

from benchmarks.estimates.predictors import Case, Fold
from taskeff.curves.curve import data_efficiency
from taskeff.estimate.beta_curve import fit_rise
from taskeff.estimate.posterior import Pilot, Score, interval, update

CAP = 4000
GRID = (16, 32, 64, 125, 250, 500, 1000, 2000, 4000)


def saturating(rng, cos_low):
    """Rises like 1 - (1 + n/n0)^-e from the first label on: early, concave, often below the top."""
    n = np.array(GRID, dtype=float)
    start = math.exp(rng.normal(4.5 - 4 * cos_low, 1.0))
    power = math.exp(rng.normal(-0.4, 0.35))
    return 1 - (1 + n / start) ** -power


def threshold(rng, cos_low):
    """Nothing until a threshold in log n, then a logistic step and a slow creep after it."""
    x = np.log2(GRID)
    middle = rng.normal(9.5 - 5 * cos_low, 1.0)
    width = math.exp(rng.normal(-0.4, 0.4))
    step = 1 / (1 + np.exp(-(x - middle) / width))
    return step * (0.85 + 0.15 * np.clip((x - middle) / 6, 0, 1))


def draw_task(rng, rise, name):
    """A task: its curve's truth is what was measured, 500 test rows and a run's own luck."""
    cos_low = float(rng.uniform(0, 0.7))
    zero_shot, ceiling = float(rng.uniform(0.1, 0.6)), float(rng.uniform(0.8, 0.97))
    top = zero_shot + (1 - zero_shot) * float(rng.beta(6, 2))
    score = zero_shot + (top - zero_shot) * np.clip(
        rise(rng, cos_low) + 0.03 * rng.standard_normal(len(GRID)), 0, 1
    )
    score = rng.binomial(500, np.clip(score, 0, 1)) / 500
    table = {0: zero_shot, **dict(zip(GRID, score.tolist()))}
    curve = data_efficiency(table, cap=CAP, ceiling=max(ceiling, *table.values()), name=name)
    return Case(curve, table, cos_low, ceiling, fit_rise(curve, ceiling))


@pytest.mark.slow
@pytest.mark.parametrize("rise", [saturating, threshold])
def test_intervals_hold_on_families_unlike_the_model(rise):
    rng = np.random.default_rng(11)
    areas, labels = [], []
    for family in range(8):
        calibration = [draw_task(rng, rise, f"c{i}") for i in range(30)]
        prior = Fold(calibration).calibration.prior
        for i in range(50):
            case = draw_task(rng, rise, f"t{i}")
            shown = GRID[: 2 * (i % 3)]
            found = update(
                prior,
                {"cos_low": case.cos_low},
                cap=CAP,
                pilots=[Pilot(n, case.scores[n], 500) for n in shown],
                zero_shot=Score(case.curve.zero_shot, 10**6),
                ceiling=case.ceiling if case.ceiling > case.curve.zero_shot else None,
                seed=50 * family + i,
                draws=2000,
            )
            low, high = interval(found.auc, 0.8)
            areas.append(low <= case.curve.auc <= high)
            truth = case.curve.labels_to_reach(0.8)
            if truth is not None and shown and truth <= max(shown):
                continue  # a pilot has answered already
            low, high = interval(found.labels(0.8), 0.8)
            truth = math.inf if truth is None else truth
            labels.append(low <= truth <= (math.inf if high is None else high))
    print(rise.__name__, np.mean(areas), len(areas), np.mean(labels), len(labels))
    assert 0.74 <= np.mean(areas) <= 0.88
    assert 0.74 <= np.mean(labels) <= 0.88
