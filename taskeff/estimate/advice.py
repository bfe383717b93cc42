"""What to do next: stop, or label more; and where a pilot would teach most.

Labelling up to n and stopping costs n times the price of a label plus what the missing share of
the range is worth to the user. The advice is the n of least expected cost over the likely curves;
asked again after every fine-tune, it stops by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from taskeff.errors import EstimateError
from taskeff.estimate.baselines import Case, Fold
from taskeff.estimate.posterior import Pilot, Posterior, update
from taskeff.estimate.prior import CurvePrior
from taskeff.estimate.special import Floats, interpolate


@dataclass(frozen=True)
class Prices:
    """What things cost, in the user's currency.

    Attributes:
        label: one label.
        gpu_hour: one GPU-hour.
        hours_per_label: GPU-hours of fine-tuning per label trained on.
        hours_fixed: GPU-hours of any fine-tune beside that.
    """

    label: float
    gpu_hour: float = 0.0
    hours_per_label: float = 0.0
    hours_fixed: float = 0.0

    def __post_init__(self) -> None:
        for name in ("label", "gpu_hour", "hours_per_label", "hours_fixed"):
            value = getattr(self, name)
            if not 0 <= value < np.inf:
                raise EstimateError(f"price {name} is {value}; give a number from 0 up")

    def cost(self, labels: float) -> dict[str, float]:
        """Labels, money and GPU-hours of labelling so many and fine-tuning once on them."""
        hours = self.hours_fixed + self.hours_per_label * labels
        return {
            "labels": labels,
            "gpu_hours": hours,
            "money": self.label * labels + self.gpu_hour * hours,
        }


@dataclass(frozen=True)
class Advice:
    """What to do next.

    Attributes:
        action: ``stop`` or ``label``.
        labels: how many to have in all, then.
        more: how many more than now.
        expected_gain: expected rise, as a share of the range.
        cost: of the labels still to make and one fine-tune, see `Prices.cost`.
    """

    action: Literal["stop", "label"]
    labels: int
    more: int
    expected_gain: float
    cost: dict[str, float]


def advise(found: Posterior, labelled: int, *, prices: Prices, value: float) -> Advice:
    """Stop, or label up to the budget of least expected cost.

    Args:
        found: the likely curves, see `taskeff.estimate.posterior.update`.
        labelled: labels made already; they are paid for.
        prices: what a label and a fine-tune cost.
        value: what the whole way from zero-shot to the ceiling is worth, in the same currency.

    Raises:
        EstimateError: `labelled` is not in [0, cap] or `value` is negative.
    """
    if not 0 <= labelled <= found.cap:
        raise EstimateError(f"labelled {labelled} is not in [0, {found.cap}]")
    if not value >= 0:
        raise EstimateError(f"value {value} is not a number from 0 up")
    budgets = [labelled, *(n for n in _budgets(found) if n > labelled)]
    share = mean_share(found, budgets)
    spent = [0.0] + [prices.cost(n)["money"] - prices.label * labelled for n in budgets[1:]]
    best = int(np.argmin(np.array(spent) + value * (1 - share)))
    n = budgets[best]
    cost = prices.cost(n)
    return Advice(
        action="stop" if best == 0 else "label",
        labels=n,
        more=n - labelled,
        expected_gain=float(share[best] - share[0]),
        cost={
            "labels": float(n - labelled),
            "gpu_hours": cost["gpu_hours"] if best else 0.0,
            "money": spent[best],
        },
    )


def next_pilot(found: Posterior, target: float, *, labelled: int = 0) -> int:
    """The budget whose score would narrow labels needed most per label, above `labelled`.

    The draws are put into twenty bins by their share at a budget; what spread of log2(labels)
    stays within the bins is what a score there would leave open.

    Raises:
        EstimateError: nothing is left to measure below the cap.
    """
    budgets = [n for n in _budgets(found) if n > labelled]
    if not budgets:
        raise EstimateError(f"all {found.cap} labels of the cap are made; there is no next pilot")
    log_labels = np.minimum(found.crossing(target), 1.0)
    whole = float(np.var(log_labels))
    gains: list[float] = []
    for n in budgets:
        order = np.argsort(_shares(found, [n])[:, 0])
        bins = np.array_split(log_labels[order], 20)
        left = float(np.mean([np.var(part) for part in bins]))
        gains.append((whole - left) / (n - labelled))
    return budgets[int(np.argmax(gains))]


def mean_share(found: Posterior, budgets: Sequence[int]) -> Floats:
    """float64 [budgets]: expected share of the range at each."""
    return np.mean(_shares(found, budgets), axis=0)


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


def _budgets(found: Posterior) -> list[int]:
    return [round(found.cap ** float(x)) for x in found.x[1:]]


def _shares(found: Posterior, budgets: Sequence[int]) -> Floats:
    """float64 [draws, budgets]: share of the range at each, straight in log2 n between points."""
    x = np.log2(np.maximum(np.array(budgets, dtype=np.float64), 1.0)) / np.log2(found.cap)
    return found.at(x)
