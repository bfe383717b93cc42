"""The adaptive grid: which budget of a calibration task to measure next, and when to stop.

1. `scouts` names the tasks to measure in full; `scout_prior` fits the family's prior on
   their curves. The prior never depends on which other tasks happen to have finished, so that a
   resumed or parallel run decides the same.
2. `tolerances` says how well every task's area must be known.
3. `decide` takes one task's scores so far: the budget to measure next, the one that narrows the
   area most per unit of cost; or that the task is determined, with posterior means for the budgets
   not measured, to be marked as imputed and never as measured.

The areas are to be regressed on CoS-Low afterwards. Imputing without CoS-Low would flatten that
line, as any imputation that leaves out a regressor does, so it is used wherever it is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from taskeff.curves.curve import TaskCurve
from taskeff.errors import EstimateError
from taskeff.estimate.beta_curve import fit_rise
from taskeff.estimate.posterior import Pilot, Score, narrowing, update
from taskeff.estimate.prior import MIN_RISES, CurvePrior, fit_prior
from taskeff.estimate.shapes import Beta, fit_shape

SCOUTS = 10
"""Tasks to measure in full before any cell is skipped: the prior needs eight, some may not rise."""
TOLERANCE = 0.015
"""Standard deviation of the area of a task of average leverage that counts as determined."""
DRAWS = 2000
"""Curves drawn for a decision: two thousand give the area's standard deviation to 2 %."""


@dataclass(frozen=True)
class Decision:
    """What to do with one task of the grid.

    Attributes:
        next_budget: the budget to measure next, in labels; None when the task is determined.
        imputed: budget -> posterior mean score in [0, 1] of every budget not measured.
        auc: posterior mean area under the task's curve.
        auc_sd: its standard deviation.
    """

    next_budget: int | None
    imputed: Mapping[int, float]
    auc: float
    auc_sd: float


def scouts(tasks: Sequence[str], cos_low: Mapping[str, float], count: int = SCOUTS) -> list[str]:
    """The tasks to measure in full, in their given order.

    Half of them are those on which the slope rests most (highest leverage), the others the first
    of the rest.

    Args:
        tasks: names of all calibration tasks, in the plan's order.
        cos_low: CoS-Low of each; empty where it is not measured yet, which makes the scouts simply
            the first tasks.
        count: how many.
    """
    leverage = _leverage(tasks, cos_low)
    heavy = sorted(tasks, key=lambda name: (-leverage[name], name))[: count // 2] if cos_low else []
    chosen = [*heavy, *(name for name in tasks if name not in heavy)][:count]
    return [name for name in tasks if name in chosen]


def tolerances(
    tasks: Sequence[str], cos_low: Mapping[str, float], tolerance: float = TOLERANCE
) -> dict[str, float]:
    """Row -> standard deviation of its area that counts as determined.

    Inversely as the root of the task's leverage, so that what is left open moves the fitted line
    equally little whichever task it is in.

    Args:
        tasks: names of all calibration tasks.
        cos_low: CoS-Low of each; empty where it is not measured yet: all tasks alike.
        tolerance: that of a task of average leverage.
    """
    leverage = _leverage(tasks, cos_low)
    average = sum(leverage.values()) / len(leverage)
    return {name: tolerance * float(np.sqrt(average / leverage[name])) for name in tasks}


def scout_prior(
    curves: Sequence[TaskCurve],
    cos_low: Mapping[str, float],
    ceilings: Mapping[str, float | None] | None = None,
) -> CurvePrior | None:
    """The prior of a family from tasks measured in full.

    Args:
        curves: their curves, by distinct names, in any order.
        cos_low: CoS-Low of each; empty to leave it out.
        ceilings: the ceilings fixed beforehand, by task; None or missing where there is none.

    Returns:
        None when fewer than eight of the curves rise: nothing can be skipped yet.
    """
    known = ceilings or {}
    ordered = sorted(curves, key=lambda curve: curve.name)
    fitted = [(curve, fit_rise(curve, known.get(curve.name))) for curve in ordered]
    risen = [(c, rise) for c, rise in fitted if rise is not None and 0 < c.auc < float(c.y[-1])]
    if len(risen) < MIN_RISES:
        return None
    rises = [rise for _, rise in risen]
    shape = fit_shape([curve for curve, _ in risen], rises=rises)
    assert isinstance(shape, Beta)
    signals = {"cos_low": [cos_low[curve.name] for curve, _ in risen]} if cos_low else {}
    return fit_prior(rises, signals, shape)


def decide(
    prior: CurvePrior,
    measured: Mapping[int, float],
    grid: Sequence[int],
    *,
    costs: Mapping[int, float],
    cap: int,
    cos_low: float | None,
    ceiling: float | None = None,
    n_test: int | None = None,
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> Decision:
    """The next budget of a task worth measuring, or that the task is determined.

    Args:
        prior: from `scout_prior`.
        measured: budget -> score in [0, 1], averaged over seeds; budget 0, the zero-shot score,
            must be among them.
        grid: all budgets of the task above 0, in labels, up to `cap`.
        costs: what measuring each budget of the grid costs, in any one unit, above 0.
        cap: the largest budget of the curve, in labels.
        cos_low: the task's CoS-Low; None exactly if the prior was fitted without.
        ceiling: the score that counts as 1 where it is fixed beforehand, else None.
        n_test: test examples behind a score.
        tolerance: the task's own, from `tolerances`; 0 measures all.
        seed: seed of the draws; the same input always gives the same decision.

    Raises:
        EstimateError: no zero-shot score, a budget without a cost, or a score out of range.
    """
    if 0 not in measured:
        raise EstimateError("the task has no score at budget 0; measure the zero-shot score first")
    missing = [n for n in grid if not costs.get(n, 0.0) > 0]
    if missing:
        raise EstimateError(f"budget {missing[0]} has no cost above 0")
    base = measured[0]
    found = update(
        prior,
        {} if cos_low is None else {"cos_low": cos_low},
        cap=cap,
        pilots=[Pilot(n, score, n_test) for n, score in sorted(measured.items()) if 0 < n <= cap],
        zero_shot=Score(base, n_test),
        # What is imputed stands beside measured scores in one curve, luck and all.
        as_measured=True,
        ceiling=ceiling if ceiling is not None and ceiling > base else None,
        seed=seed,
        draws=DRAWS,
    )
    rest = sorted(n for n in set(grid) if n not in measured)
    x = np.log2(np.array([float(n) for n in rest])) / np.log2(cap)
    scores = base + (1 - base) * found.at(x) * found.top[:, None]
    sd = float(np.std(found.auc))
    gains = [narrowing(found.auc, scores[:, i]) / costs[n] for i, n in enumerate(rest)]
    determined = not rest or sd <= tolerance
    return Decision(
        next_budget=None if determined else rest[int(np.argmax(gains))],
        imputed=dict(zip(rest, scores.mean(axis=0).tolist(), strict=True)),
        auc=float(np.mean(found.auc)),
        auc_sd=sd,
    )


def _leverage(tasks: Sequence[str], cos_low: Mapping[str, float]) -> dict[str, float]:
    """Diagonal of the hat matrix of a line over the tasks; equal where CoS-Low says nothing."""
    if not tasks:
        raise EstimateError("no calibration tasks; name some under tasks.calibration")
    if not cos_low:
        return dict.fromkeys(tasks, 2 / len(tasks))
    missing = [name for name in tasks if name not in cos_low]
    if missing:
        raise EstimateError(f"task {missing[0]!r} has no CoS-Low; measure all tasks' or none")
    x = np.array([cos_low[name] for name in tasks])
    off = x - x.mean()
    spread = max(float(off @ off), 1e-12)
    return dict(zip(tasks, (1 / len(tasks) + off**2 / spread).tolist(), strict=True))
