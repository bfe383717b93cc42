"""What to do next: stop, or label more; and where a pilot would teach most.

Labelling up to n and stopping costs n times the price of a label plus what the missing share of
the range is worth to the user. The advice is the n of least expected cost over the likely curves;
asked again after every fine-tune, it stops by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from taskeff.curves.curve import Floats
from taskeff.errors import EstimateError
from taskeff.estimate.budget import Estimate
from taskeff.estimate.posterior import Posterior, narrowing
from taskeff.estimate.rounding import whole


@dataclass(frozen=True)
class Prices:
    """What things cost, in the user's currency.

    Attributes:
        label: one label.
        gpu_hour: one GPU-hour.
        hours_per_label: GPU-hours of fine-tuning per label trained on.
        hours_fixed: GPU-hours of any fine-tune beside that.

    Examples:
        >>> taskeff.Prices(label=0.4, gpu_hour=2, hours_fixed=0.5).cost(100)
        {'labels': 100, 'gpu_hours': 0.5, 'money': 41.0}
    """

    label: float = 0.0
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

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def outlook(
    estimate: Estimate, *, prices: Prices, value: float | None = None, labelled: int = 0
) -> dict[str, Any]:
    """What an estimate means in money, and what to do next (`taskeff predict`).

    Args:
        estimate: the estimate.
        prices: what a label and a fine-tune cost.
        value: what the whole way from zero-shot to the ceiling is worth, in the prices' currency;
            None gives no advice.
        labelled: labels made already; they are paid for.

    Returns:
        JSON-ready ``cost`` (of the labels still to make and one fine-tune on all that are needed;
        None when the target is not reachable), ``cost_intervals`` (coverage level -> the same at
        both ends; None beyond the cap), ``advice`` or None with ``advice_reason``,
        ``next_pilot`` or None with ``next_pilot_reason``, ``prices`` and ``labelled``.

    Raises:
        EstimateError: `labelled` is not in [0, cap] or `value` is negative.
    """
    if not 0 <= labelled <= estimate.cap:
        raise EstimateError(f"labelled {labelled} is not in [0, {estimate.cap}]")

    def cost(labels: float | None) -> dict[str, float] | None:
        if labels is None:
            return None
        needed = whole(labels)
        if needed <= labelled:
            return {"labels": 0.0, "gpu_hours": 0.0, "money": 0.0}
        return still_to_pay(prices, float(needed), labelled)

    found: dict[str, Any] = {
        "cost": cost(estimate.labels_needed),
        "cost_intervals": estimate.intervals
        and {
            f"{100 * level:.0f}": [cost(low), cost(high)]
            for level, (low, high) in estimate.intervals.items()
        },
        "prices": asdict(prices),
        "labelled": labelled,
        "advice": None,
        "advice_reason": None,
        "next_pilot": None,
        "next_pilot_reason": None,
    }
    if estimate.posterior is None:
        reason = "one curve per area says nothing of what a fine-tune would teach"
        return {**found, "advice_reason": reason, "next_pilot_reason": reason}
    if value is None:
        found["advice_reason"] = "no value given for the way from zero-shot to the ceiling"
    else:
        found["advice"] = advise(estimate.posterior, labelled, prices=prices, value=value).to_dict()
    try:
        found["next_pilot"] = next_pilot(estimate.posterior, estimate.target, labelled=labelled)
    except EstimateError as error:
        found["next_pilot_reason"] = str(error)
    return found


def still_to_pay(prices: Prices, labels: float, labelled: int) -> dict[str, float]:
    """Labels, hours and money still to spend on a fine-tune on `labels`."""
    paid = prices.cost(labels)
    return {
        "labels": labels - labelled,
        "gpu_hours": paid["gpu_hours"],
        "money": paid["money"] - prices.label * labelled,
    }


@dataclass(frozen=True)
class Stop:
    """What it means to label up to so many and stop there.

    Attributes:
        labels: labels in all.
        share: expected share of the range at them.
        cost: of the labels still to make and one fine-tune on all; nothing at what is labelled.
    """

    labels: int
    share: float
    cost: dict[str, float]

    def in_all(self, value: float) -> float:
        """The money and what is missed of the range, the whole of which is worth `value`."""
        return self.cost["money"] + value * (1 - self.share)


def stops(found: Posterior, labelled: int, *, prices: Prices) -> list[Stop]:
    """Every place to stop at: what is labelled now, and the curve's budgets above it.

    Args:
        found: the likely curves, see `taskeff.estimate.posterior.update`.
        labelled: labels made already; they are paid for.
        prices: what a label and a fine-tune cost.

    Raises:
        EstimateError: `labelled` is not in [0, cap].
    """
    if not 0 <= labelled <= found.cap:
        raise EstimateError(f"labelled {labelled} is not in [0, {found.cap}]")
    budgets = [labelled, *(n for n in _budgets(found) if n > labelled)]
    rows: list[Stop] = []
    for n, share in zip(budgets, mean_share(found, budgets).tolist(), strict=True):
        cost = {"labels": 0.0, "gpu_hours": 0.0, "money": 0.0}
        if n > labelled:
            cost = still_to_pay(prices, float(n), labelled)
        rows.append(Stop(n, share, cost))
    return rows


def advise(found: Posterior, labelled: int, *, prices: Prices, value: float) -> Advice:
    """Stop, or label up to the budget of least expected cost.

    Args:
        found, labelled, prices: see `stops`.
        value: what the whole way from zero-shot to the ceiling is worth, in the same currency.

    Raises:
        EstimateError: `labelled` is not in [0, cap] or `value` is negative.
    """
    if not value >= 0:
        raise EstimateError(f"value {value} is not a number from 0 up")
    rows = stops(found, labelled, prices=prices)
    best = int(np.argmin([row.in_all(value) for row in rows]))
    return Advice(
        action="stop" if best == 0 else "label",
        labels=rows[best].labels,
        more=rows[best].labels - labelled,
        expected_gain=rows[best].share - rows[0].share,
        cost=rows[best].cost,
    )


def next_pilot(found: Posterior, target: float, *, labelled: int = 0) -> int:
    """The budget whose score would narrow labels needed most per label, above `labelled`.

    Raises:
        EstimateError: nothing is left to measure below the cap.
    """
    budgets = [n for n in _budgets(found) if n > labelled]
    if not budgets:
        raise EstimateError(f"all {found.cap} labels of the cap are made; there is no next pilot")
    log_labels = np.minimum(found.crossing(target), 1.0)
    gains = [narrowing(log_labels, _shares(found, [n])[:, 0]) / (n - labelled) for n in budgets]
    return budgets[int(np.argmax(gains))]


def mean_share(found: Posterior, budgets: Sequence[int]) -> Floats:
    """float64 [budgets]: expected share of the range at each."""
    return np.mean(_shares(found, budgets), axis=0)


def _budgets(found: Posterior) -> list[int]:
    return [round(found.cap ** float(x)) for x in found.x[1:]]


def _shares(found: Posterior, budgets: Sequence[int]) -> Floats:
    """float64 [draws, budgets]: share of the range at each, straight in log2 n between points."""
    x = np.log2(np.maximum(np.array(budgets, dtype=np.float64), 1.0)) / np.log2(found.cap)
    return found.at(x)
