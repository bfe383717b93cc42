"""What following the advice would have cost on measured curves, against knowing them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from taskeff.errors import EstimateError
from taskeff.estimate.advice import Prices, advise
from taskeff.estimate.baselines import Case, Fold
from taskeff.estimate.posterior import Pilot, Posterior, update
from taskeff.estimate.prior import CurvePrior
from taskeff.estimate.special import interpolate


def replay(
    cases: Sequence[Case], values: Sequence[float] = (1000.0, 5000.0, 20000.0)
) -> list[dict[str, Any]]:
    """What following `advise` would have cost on measured curves, against knowing them.

    Every task is left out of its own calibration. The policy starts from nothing, labels up to the
    next budget of the grid for as long as the advice is to label, sees the score there, and asks
    again; a label costs 1.

    Args:
        cases: the tasks.
        values: what the whole range is worth, in labels.

    Returns:
        One record a value: the oracle's mean cost, the policy's, and the regret as a share of the
        oracle's.
    """
    costs: dict[float, list[tuple[float, float]]] = {value: [] for value in values}
    for case in cases:
        prior = Fold([c for c in cases if c is not case]).calibration.prior
        if prior is None:
            raise EstimateError(f"{len(cases)} tasks are too few to replay advice; nine are needed")
        curve = case.curve
        grid = [0, *(n for n in prior.shape.budgets if n <= curve.points[-1].budget)]
        at = np.log2(np.maximum(np.array(grid, dtype=np.float64), 1.0)) / np.log2(curve.cap)
        share = interpolate(at, curve.x, curve.y)
        stages = _stages(case, grid, prior)
        for value in values:
            spent = np.array(grid) + value * (1 - share)
            stop = 0
            while stop + 1 < len(grid):
                advice = advise(stages[stop], grid[stop], prices=Prices(1.0), value=value)
                if advice.action == "stop":
                    break
                stop += 1
            costs[value].append((float(spent[stop]), float(spent.min())))
    return [
        {
            "value": value,
            "oracle": float(np.mean([best for _, best in found])),
            "policy": float(np.mean([paid for paid, _ in found])),
            "regret": sum(paid - best for paid, best in found) / sum(best for _, best in found),
        }
        for value, found in costs.items()
    ]


def _stages(case: Case, grid: Sequence[int], prior: CurvePrior) -> list[Posterior]:
    """The likely curves after each budget of the grid."""
    ceiling, base = case.ceiling, case.curve.zero_shot
    stages: list[Posterior] = []
    for n in grid:
        pilots = [Pilot(b, case.scores[b]) for b in grid if 0 < b <= n and b in case.scores]
        stages.append(
            update(
                prior,
                case.cos_low,
                cap=case.curve.cap,
                pilots=pilots,
                zero_shot=base,
                ceiling=ceiling if ceiling is not None and ceiling > base else None,
            )
        )
    return stages
