"""Stop advice on tasks that are as the calibration says: what is left is luck, not the model."""

import numpy as np
import pytest

from taskeff.estimate.baselines import Fold
from taskeff.estimate.posterior import Pilot, update
from taskeff.estimate.replay import VALUES, Replayed
from taskeff.estimate.special import beta_cdf
from tests.estimate.conftest import BUDGETS, CAP

ZERO_SHOT, CEILING = 0.3, 0.9
HEADROOM = (CEILING - ZERO_SHOT) / (1 - ZERO_SHOT)


def draw(prior, rng, seed):
    """A task drawn from the prior, and what is known of it after each budget of the grid."""
    cos_low = float(rng.uniform(0, 0.7))
    area, sudden, gain = (v[0] for v in prior.draw(cos_low, HEADROOM, 1, rng))
    x = np.log2(BUDGETS) / np.log2(CAP)
    rough = prior.shape.roughness * rng.standard_normal(len(x)) * (x < 1)
    level = np.clip(gain * (beta_cdf(x, area, sudden) + rough), 0, 1)
    risen = np.maximum.accumulate(np.concatenate([[0.0], level]))
    pilots = [
        Pilot(n, float(ZERO_SHOT + (1 - ZERO_SHOT) * at), 10**6) for n, at in zip(BUDGETS, level)
    ]
    known = {"cap": CAP, "zero_shot": ZERO_SHOT, "ceiling": CEILING, "seed": seed, "draws": 1500}
    stages = [update(prior, cos_low, pilots=pilots[:k], **known) for k in range(len(BUDGETS) + 1)]
    return Replayed((0, *BUDGETS), risen / max(risen[-1], HEADROOM), stages)


@pytest.mark.slow
def test_regret_on_tasks_drawn_from_the_prior(cases):
    """Advice that knew the prior exactly would still pay for what no score had shown yet."""
    prior = Fold(cases).calibration.prior
    rng = np.random.default_rng(5)
    tasks = [draw(prior, rng, seed) for seed in range(100)]
    regrets = []
    for value in VALUES:
        costs = [task.costs(value) for task in tasks]
        best = sum(cost.min() for cost in costs)
        regrets.append(sum(c[t.stop(value)] for c, t in zip(costs, tasks, strict=True)) / best - 1)
    print(np.round(regrets, 3), np.mean(regrets))
    assert min(regrets) >= 0
    assert np.mean(regrets) <= 0.1
