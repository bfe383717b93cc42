import numpy as np
import pytest
from hypothesis import settings

from benchmarks.estimates.predictors import Case
from taskeff.curves.curve import data_efficiency
from taskeff.estimate.beta_curve import beta_cdf, fit_rise
from taskeff.estimate.regression import expit

# A deadline is a timing assertion: on a busy machine it fails by itself.
settings.register_profile("estimate", deadline=None, max_examples=50)
settings.load_profile("estimate")

BUDGETS = (50, 100, 200, 500, 1000, 2500, 5000)
CAP = 5000


def made_up_cases(n: int, seed: int = 0) -> list[Case]:
    """Tasks whose area rises with CoS-Low, with rough curves and ceilings known beforehand."""
    rng = np.random.default_rng(seed)
    x = np.log2(BUDGETS) / np.log2(CAP)
    cases = []
    for i in range(n):
        cos_low = float(rng.uniform(0, 0.7))
        area = float(expit(-0.8 + 3 * cos_low + 0.5 * rng.standard_normal()))
        sudden = float(np.exp(1.5 + 0.5 * rng.standard_normal()))
        zero_shot, top = float(rng.uniform(0.1, 0.6)), float(rng.uniform(0.75, 0.98))
        smooth = beta_cdf(x, area, sudden) + 0.04 * rng.standard_normal(len(x)) * (x < 1)
        scores = np.clip(zero_shot + (top - zero_shot) * smooth, 0, 1).tolist()
        table = {0: zero_shot, **dict(zip(BUDGETS, scores))}
        curve = data_efficiency(table, cap=CAP, ceiling=0.9, mode="published", name=f"t{i:02}")
        cases.append(Case(curve, table, cos_low, 0.9, fit_rise(curve, 0.9)))
    return cases


@pytest.fixture(scope="session")
def cases() -> list[Case]:
    return made_up_cases(24)
