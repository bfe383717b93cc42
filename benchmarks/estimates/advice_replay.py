"""What following the advice would have cost on measured curves, against knowing them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.estimates.predictors import Case, Fold
from taskeff.curves.curve import Floats
from taskeff.errors import EstimateError
from taskeff.estimate.advice import Prices, advise
from taskeff.estimate.posterior import Pilot, Posterior, Score, update
from taskeff.estimate.prior import CurvePrior

VALUES = (300.0, 1000.0, 2500.0, 5000.0, 10000.0, 20000.0, 50000.0)
"""What the whole range is worth, in labels: from a few pilots to ten times the published cap."""


@dataclass(frozen=True)
class Replayed:
    """One task: its grid, its measured shares there, and the likely curves after each step."""

    grid: Sequence[int]
    share: Floats
    stages: Sequence[Posterior]

    def costs(self, value: float) -> Floats:
        """float64 [grid]: what stopping at each budget costs, in labels."""
        return np.array(self.grid, dtype=np.float64) + value * (1 - self.share)

    def stop(self, value: float) -> int:
        """Index of the budget at which following `advise` ends."""
        at = 0
        while at + 1 < len(self.grid):
            said = advise(self.stages[at], self.grid[at], prices=Prices(1.0), value=value)
            if said.action == "stop":
                break
            at += 1
        return at


def replay(cases: Sequence[Case], values: Sequence[float] = VALUES) -> list[dict[str, Any]]:
    """What following `advise` would have cost on measured curves, against knowing them.

    Every task is left out of its own calibration. The policy starts from nothing, labels up to the
    next budget of the grid for as long as the advice is to label, sees the score there, and asks
    again; a label costs 1, a fine-tune nothing. The oracle knows the measured curve, luck included.

    Args:
        cases: the tasks.
        values: what the whole range is worth, in labels.

    Returns:
        One record a value: the oracle's mean cost, the policy's and its regret as a share of the
        oracle's, and that of always labelling the one budget that was best for the other tasks.
    """
    tasks = [_replayed(case, cases) for case in cases]
    records: list[dict[str, Any]] = []
    for value in values:
        costs = [task.costs(value) for task in tasks]
        best = np.array([cost.min() for cost in costs])
        paid = np.array([c[t.stop(value)] for c, t in zip(costs, tasks, strict=True)])
        fixed = np.array([_fixed(tasks, costs, i) for i in range(len(tasks))], dtype=np.float64)
        records.append(
            {
                "value": value,
                "oracle": float(best.mean()),
                "policy": float(paid.mean()),
                "regret": float((paid - best).sum() / best.sum()),
                "fixed_regret": float((fixed - best).sum() / best.sum()),
            }
        )
    return records


def _replayed(case: Case, cases: Sequence[Case]) -> Replayed:
    prior = Fold([c for c in cases if c is not case]).calibration.prior
    if prior is None:
        raise EstimateError(f"{len(cases)} tasks are too few to replay advice; nine are needed")
    curve = case.curve
    grid = [0, *(n for n in prior.shape.budgets if n <= curve.points[-1].budget)]
    at = np.log2(np.maximum(np.array(grid, dtype=np.float64), 1.0)) / np.log2(curve.cap)
    return Replayed(grid, np.interp(at, curve.x, curve.y), _stages(case, grid, prior))


def _fixed(tasks: Sequence[Replayed], costs: Sequence[Floats], left_out: int) -> float:
    """The task's cost at the budget that was cheapest for the others on average."""
    grid = np.array(tasks[left_out].grid, dtype=np.float64)
    others = [
        np.interp(grid, np.array(task.grid, dtype=np.float64), cost)
        for i, (task, cost) in enumerate(zip(tasks, costs, strict=True))
        if i != left_out
    ]
    return float(costs[left_out][int(np.argmin(np.mean(others, axis=0)))])


def _stages(case: Case, grid: Sequence[int], prior: CurvePrior) -> list[Posterior]:
    """The likely curves after each budget of the grid."""
    ceiling, base = case.ceiling, case.curve.zero_shot
    stages: list[Posterior] = []
    for n in grid:
        pilots = [Pilot(b, case.scores[b]) for b in grid if 0 < b <= n and b in case.scores]
        stages.append(
            update(
                prior,
                {"cos_low": case.cos_low},
                cap=case.curve.cap,
                pilots=pilots,
                zero_shot=Score(base),
                ceiling=ceiling if ceiling is not None and ceiling > base else None,
                as_measured=True,
            )
        )
    return stages
