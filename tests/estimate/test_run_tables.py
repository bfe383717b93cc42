import numpy as np
import pytest

from taskeff.estimate.beta_curve import beta_cdf, fit_rise
from taskeff.estimate.run_tables import task_curves
from taskeff.estimate.shapes import Beta, fit_shape

BUDGETS = (16, 64, 256, 1024)


def rows(task, scores, **more):
    return [{"task": task, "budget": n, "score": s, **more} for n, s in scores]


def test_seeds_are_averaged_and_skipped_cells_marked():
    table = [
        *rows("a", [(0, 0.1), (16, 0.2), (64, 0.5)]),
        *rows("a", [(16, 0.4)]),
        *rows("a", [(256, 0.7)], status="imputed"),
    ]
    curve = task_curves(table, cap=256, ceiling=0.9)["a"]
    assert [(p.score, p.seeds, p.status) for p in curve.points] == [
        (0.1, 1, "measured"),
        (pytest.approx(0.3), 2, "measured"),
        (0.5, 1, "measured"),
        (0.7, 1, "imputed"),
    ]
    assert curve.points[1].spread == pytest.approx(np.std([0.2, 0.4], ddof=1))
    assert curve.status == "imputed"


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_seeds_spread_is_found_again(seeds):
    """Runs scattered by .05 of the range around their task's curve: the mean of three leaves .04
    of a single run's scatter unexplained, one seed leaves none."""
    rng = np.random.default_rng(0)
    x = np.log2(BUDGETS) / np.log2(BUDGETS[-1])
    table = []
    for i in range(60):
        smooth = beta_cdf(x, float(rng.uniform(0.3, 0.6)), 5.0)
        table += rows(f"t{i}", [(0, 0.0)])
        for _ in range(seeds):
            scores = 0.8 * np.clip(smooth + 0.05 * rng.standard_normal(4), 0, 1)
            table += rows(f"t{i}", zip(BUDGETS, scores.tolist()))
    curves = list(task_curves(table, cap=BUDGETS[-1], ceiling=0.8).values())
    shape = fit_shape(curves, rises=[fit_rise(curve) for curve in curves])
    assert isinstance(shape, Beta)
    # At the cap half of the scatter is clipped away, a quarter of the points.
    assert shape.seed_spread == pytest.approx(0.05 * (2 / 3) ** 0.5 if seeds > 1 else 0.0, rel=0.15)
