"""What further evidence would narrow an answer most, and what it costs.

Each possible piece is taken as a noisy look at the likely curves: the draws say how much of the
variance of log(labels), up to the cap, is expected to be gone once it is known.
"""

# pyright: basic
# numpy and scipy declare only a part of their types.

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from taskeff.curves.curve import Floats
from taskeff.estimate.advice import Prices, still_to_pay
from taskeff.estimate.budget import Estimate
from taskeff.estimate.calibration import Calibration
from taskeff.estimate.posterior import narrowing, update
from taskeff.estimate.sibling import SIGNALS

ROWS = 100
"""Test rows that a first pilot is taken to be scored on."""
COS_LOW_LABELS = 32
"""Labels that CoS-Low takes."""


@dataclass(frozen=True)
class Sharpening:
    """One piece of evidence that could be had.

    Attributes:
        what: ``pilot``, ``test rows``, ``CoS-Low`` or ``sibling``.
        narrows: expected share of the variance of log(labels) that it takes away, in [0, 1].
        labels: labels to make for it, to train or to test on.
        budget: of the pilot to make or to score again, in labels; None for the others.
        cost: of the labels and, for a pilot, its fine-tune; see `Prices.cost`. A sibling's
            fine-tunes are another model's and not counted.
    """

    what: Literal["pilot", "test rows", "CoS-Low", "sibling"]
    narrows: float
    labels: int
    budget: int | None
    cost: dict[str, float]


def sharpenings(
    calibration: Calibration,
    estimate: Estimate,
    *,
    prices: Prices,
    labelled: int,
    next_pilot: int | None,
) -> list[Sharpening]:
    """What could be had, what narrows the answer most first.

    Args:
        calibration: the family asked.
        estimate: its answer; without a posterior there is nothing to say.
        prices: what a label and a fine-tune cost.
        labelled: labels made already.
        next_pilot: the budget of `taskeff.estimate.advice.next_pilot`.
    """
    found = estimate.posterior
    if found is None:
        return []
    labels = np.minimum(found.crossing(estimate.target), 1.0)
    variance = float(np.var(labels))
    if variance <= 0.0:
        return []
    rng = np.random.default_rng(estimate.seed)

    def worth(looks: list[Floats]) -> float:
        return max(max(narrowing(labels, look) / variance for look in looks), 0.0)

    options: list[Sharpening] = []
    tests = max((p.n_test or 0 for p in estimate.pilots), default=0)
    if next_pilot is not None:
        rows = 0 if estimate.pilots else ROWS
        cost = still_to_pay(prices, float(next_pilot), labelled)
        cost |= {"labels": cost["labels"] + rows, "money": cost["money"] + prices.label * rows}
        look = _scored(estimate, next_pilot, tests or ROWS, rng)
        more = next_pilot - labelled + rows
        options.append(Sharpening("pilot", worth([look]), more, next_pilot, cost))
    if tests:
        last = max(estimate.pilots, key=lambda pilot: pilot.budget).budget
        look = _scored(estimate, last, tests, rng)
        options.append(Sharpening("test rows", worth([look]), tests, last, _labels(prices, tests)))
    if estimate.cos_low is None and (noise := _line_noise(calibration)) is not None:
        look = found.auc + noise * rng.standard_normal(len(labels))
        cost = _labels(prices, COS_LOW_LABELS)
        options.append(Sharpening("CoS-Low", worth([look]), COS_LOW_LABELS, None, cost))
    if estimate.sibling is None and (told := _told_by_sibling(calibration)) is not None:
        truths = (found.auc, found.share[:, -1])
        looks = [
            truth + math.sqrt((1 - r) / r * float(np.var(truth))) * rng.standard_normal(len(truth))
            for truth, r in zip(truths, told, strict=True)
            if r > 0
        ]
        if looks:
            options.append(Sharpening("sibling", worth(looks), 0, None, _labels(prices, 0)))
    return sorted(options, key=lambda option: (-option.narrows, option.labels))


def _labels(prices: Prices, labels: int) -> dict[str, float]:
    return {"labels": float(labels), "gpu_hours": 0.0, "money": prices.label * labels}


def _scored(estimate: Estimate, budget: int, tests: int, rng: np.random.Generator) -> Floats:
    """float64 [draws]: the score that a test on so many further rows would show at a budget."""
    found = estimate.posterior
    assert found is not None
    x = np.array([math.log(budget) / math.log(found.cap)])
    base = estimate.zero_shot or 0.0
    score = np.clip(base + (1 - base) * found.top * found.at(np.minimum(x, 1.0))[:, 0], 0.0, 1.0)
    return score + np.sqrt(score * (1 - score) / tests) * rng.standard_normal(len(score))


def _line_noise(calibration: Calibration) -> float | None:
    """The error of a look at the area that leaves what the line in CoS-Low leaves open.

    None where there is no line, or none that says more than the mean does.
    """
    if calibration.line is None:
        return None
    if calibration.mean_baseline is not None:
        # Both errors are mean absolute ones, of a normal in `line_sd`.
        before = math.pi / 2 * calibration.mean_baseline**2
    elif (plain := calibration.prior_given(())) is not None:
        before = float(np.var(update(plain, {}, cap=calibration.cap).auc))
    else:
        return None
    after = calibration.line_sd**2
    return math.sqrt(after * before / (before - after)) if after < before else None


def _told_by_sibling(calibration: Calibration) -> tuple[float, float] | None:
    """The shares of the variance of area and of gain that a sibling explains, in [0, 1] each.

    None for a family of one's own: what it makes of a sibling depends on the tasks in common.
    """
    plain, beside = calibration.prior_given(()), None
    if not calibration.tasks:
        beside = calibration.prior_given(SIGNALS)
    if plain is None or beside is None:
        return None
    before, after = (np.diag(prior.scale) / prior.freedom for prior in (plain, beside))
    told = np.clip(1 - after / before, 0.0, 1.0)
    return float(told[0]), float(told[2])
