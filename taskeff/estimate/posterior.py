"""From CoS-Low and pilot scores to a distribution over a task's whole curve.

A task's curve is v * B(x; a, s) + roughness: B the Beta curve of area a and concentration s, v the
share of the headroom above zero-shot gained at the cap, and the roughness an independent normal
departure at every budget but the cap. A new task's (a, s, v) are drawn from the family's prior and
weighed by its pilot scores.
"""

# pyright: basic
# numpy and scipy declare only a part of their types.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from taskeff.curves.curve import Floats
from taskeff.errors import EstimateError
from taskeff.estimate.beta_curve import beta_cdf
from taskeff.estimate.prior import CurvePrior
from taskeff.estimate.regression import expit

DRAWS = 8000
SHARES = tuple(np.linspace(0, 1, 21)[1:].tolist())
"""Shares at which the likely curve is worked out; the usual targets are among them."""
N_TEST = 1000
"""Test examples assumed behind a pilot score that does not say."""


@dataclass(frozen=True)
class Score:
    """A measured score in [0, 1] and the test examples behind it, None when unknown."""

    score: float
    n_test: int | None = None


@dataclass(frozen=True)
class Pilot:
    """A fine-tune already made on the task.

    Attributes:
        budget: labels it was trained on, at least 1.
        score: its test score, in [0, 1].
        n_test: number of test examples behind the score; None when unknown.
    """

    budget: int
    score: float
    n_test: int | None = None


@dataclass(frozen=True)
class Posterior:
    """Equally likely curves of one task.

    Attributes:
        x: float64 [points], from 0 to 1: log2(labels) as a share of log2(cap).
        share: float64 [draws, points], running maximum of the score as a share of the range.
        auc: float64 [draws], area under each curve.
        top: float64 [draws], what counts as 1 in each: (ceiling - zero_shot) / (1 - zero_shot).
        cap: the largest budget, in labels.
        effective: effective number of prior draws behind the posterior ones.
    """

    x: Floats
    share: Floats
    auc: Floats
    top: Floats
    cap: int
    effective: float

    def crossing(self, target: float) -> Floats:
        """float64 [draws]: x at which each curve first reaches `target`; inf if it does not."""
        hit = self.share >= target
        right = np.maximum(hit.argmax(axis=1), 1)
        rows = np.arange(len(hit))
        low, high = self.share[rows, right - 1], self.share[rows, right]
        part = np.clip((target - low) / np.maximum(high - low, 1e-12), 0.0, 1.0)
        x = self.x[right - 1] + (self.x[right] - self.x[right - 1]) * part
        return np.where(hit.any(axis=1), x, np.inf)

    def labels(self, target: float) -> Floats:
        """float64 [draws]: labels at which each curve first reaches `target`; inf beyond cap."""
        return np.power(float(self.cap), self.crossing(target))

    def labels_needed(self, target: float) -> float | None:
        """Median labels of the curves that reach `target`; None where fewer than half do."""
        labels = self.labels(target)
        reached = labels[np.isfinite(labels)]
        return float(np.median(reached)) if 2 * len(reached) >= len(labels) else None

    def likely(self, x: Floats) -> Floats:
        """float64 [len(x)]: the share whose `labels_needed` each x is, to be drawn as one curve.

        It crosses every target at the labels that are said of it and ends level at the highest
        share that more curves reach than not. The median share at each x would cross later: it
        counts curves that never arrive.
        """
        # The highest share that at least half of the curves reach: there the line ends.
        top = float(np.sort(self.share[:, -1])[len(self.share) // 2])
        shares = [*(share for share in SHARES if share < top), top]
        needed = [self.labels_needed(share) or self.cap for share in shares]
        at = np.maximum.accumulate(np.log(needed) / np.log(self.cap))
        return np.interp(x, [0.0, *at], [0.0, *shares])

    def at(self, x: Floats) -> Floats:
        """float64 [draws, len(x)]: every curve's share at `x`, straight between its points."""
        right = np.minimum(np.maximum(np.searchsorted(self.x, x), 1), len(self.x) - 1)
        part = (x - self.x[right - 1]) / (self.x[right] - self.x[right - 1])
        return self.share[:, right - 1] * (1 - part) + self.share[:, right] * part

    def band(self, x: Floats, levels: Sequence[float]) -> dict[float, tuple[Floats, Floats]]:
        """Level -> the (low, high) between which the share at each `x` lies."""
        share = self.at(x)
        return {
            level: tuple(np.quantile(share, [(1 - level) / 2, (1 + level) / 2], axis=0))
            for level in levels
        }


def update(
    prior: CurvePrior,
    cos_low: float | None,
    *,
    cap: int,
    pilots: Sequence[Pilot] = (),
    zero_shot: float | None = None,
    ceiling: float | None = None,
    seed: int = 0,
    draws: int = DRAWS,
) -> Posterior:
    """The task's curves, given CoS-Low and pilots.

    Args:
        prior: the family's prior.
        cos_low: the task's CoS-Low; None for a prior fitted without it.
        cap: the largest budget, in labels.
        pilots: scores measured so far, one a budget.
        zero_shot: zero-shot score; needed with pilots.
        ceiling: a-priori ceiling; None is one like the calibration tasks'. A curve that passes it
            raises it.
        seed: seed of the draws.
        draws: number of prior draws, and of posterior ones.

    Raises:
        EstimateError: pilots without zero-shot score, or a value out of range.
    """
    base = _check(pilots, zero_shot, ceiling, cap)
    rng = np.random.default_rng(seed)
    headroom = None
    if ceiling is not None and zero_shot is not None:
        headroom = (ceiling - zero_shot) / (1 - zero_shot)
    area, concentration, gain = prior.draw(cos_low, headroom, draws, rng)
    budgets = sorted(
        n for n in {*prior.shape.budgets, *(p.budget for p in pilots), cap} if n <= cap
    )
    x = np.log2(np.array(budgets, dtype=np.float64)) / np.log2(cap)
    rise = beta_cdf(x[None, :], area[:, None], concentration[:, None])
    weights = np.full(draws, 1 / draws)
    if pilots:
        at = np.log2([float(pilot.budget) for pilot in pilots]) / np.log2(cap)
        expected = beta_cdf(at[None, :], area[:, None], concentration[:, None])
        scatter = prior.shape.score_scatter([pilot.budget for pilot in pilots])
        weights = _weigh(expected, gain * (1 - base), base, pilots, scatter)
    picked = rng.choice(draws, size=draws, p=weights)
    # The gain is what the highest point of the curve gained, so the cap itself is not rough.
    roughness = np.where(x < 1, prior.shape.roughness, 0.0)
    rough = rng.standard_normal((draws, len(x))) * roughness
    level = (rise[picked] + rough) * gain[picked, None]
    for pilot in pilots:
        # The question is where the measured curve crosses, so a measurement is what it is.
        level[:, budgets.index(pilot.budget)] = (pilot.score - base) / (1 - base)
    level = np.maximum.accumulate(np.clip(level, 0.0, 1.0), axis=1)
    if headroom is None and prior.ceiling_logit is not None:
        headroom = float(expit(prior.ceiling_logit))
    top = np.maximum(level[:, -1], headroom or 1e-9)
    share = np.concatenate([np.zeros((draws, 1)), level / top[:, None]], axis=1)
    x = np.concatenate([[0.0], x])
    auc = ((share[:, 1:] + share[:, :-1]) / 2) @ np.diff(x)
    return Posterior(x, share, auc, top, cap, float(1 / np.sum(weights**2)))


def interval(values: Floats, level: float) -> tuple[float, float | None]:
    """The central share `level` of draws; its end is None where it lies at infinity.

    It leaves out the same share of draws on either side, unless more than that is infinite: then
    all that is left out is left out below.
    """
    tail = (1 - level) / 2
    if float(np.mean(np.isinf(values))) > tail:
        return float(np.quantile(values, 1 - level, method="inverted_cdf")), None
    low, high = np.quantile(values, [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high)


def narrowing(values: Floats, by: Floats) -> float:
    """By how much knowing `by` is expected to lower the variance of `values`, a draw each.

    The draws are put into twenty bins by `by`; what spread stays within them it leaves open.
    """
    bins = np.array_split(values[np.argsort(by)], 20)
    return float(np.var(values)) - float(np.mean([np.var(part) for part in bins]))


def _weigh(
    expected: Floats, unit: Floats, base: float, pilots: Sequence[Pilot], scatter: Floats
) -> Floats:
    """float64 [draws]: the weight of every prior draw given the pilots; they sum to 1.

    Args:
        expected: float64 [draws, pilots], share of the curve's highest value at the pilots.
        unit: float64 [draws], score points per such share.
        base: the zero-shot score.
        pilots: what was measured.
        scatter: float64 [pilots], of single runs around smooth curves, in such shares.
    """
    scores = np.array([pilot.score for pilot in pilots])
    tests = np.array([pilot.n_test or N_TEST for pilot in pilots], dtype=np.float64)
    # Agresti-Coull: a score of 0 or 1 on few examples is not a certainty.
    smoothed = (scores * tests + 2) / (tests + 4)
    variance = (smoothed * (1 - smoothed) / tests)[None, :] + (scatter * unit[:, None]) ** 2
    off = scores[None, :] - base - expected * unit[:, None]
    logs = -0.5 * np.sum(off**2 / variance + np.log(variance), axis=1)
    weights = np.exp(logs - logs.max())
    return weights / weights.sum()


def _check(
    pilots: Sequence[Pilot], zero_shot: float | None, ceiling: float | None, cap: int
) -> float:
    """The zero-shot score, 0 when it does not matter."""
    if zero_shot is not None and not 0.0 <= zero_shot < 1.0:
        raise EstimateError(f"the zero-shot score {zero_shot} is not in [0, 1)")
    if ceiling is not None and not (zero_shot or 0.0) < ceiling <= 1.0:
        raise EstimateError(
            f"the ceiling {ceiling} is not above the zero-shot score {zero_shot} and at most 1"
        )
    if pilots and zero_shot is None:
        raise EstimateError("pilot scores need the zero-shot score beside them; give it")
    seen: set[int] = set()
    for pilot in pilots:
        if not 1 <= pilot.budget <= cap:
            raise EstimateError(f"pilot at {pilot.budget} labels: give a budget from 1 to {cap}")
        if pilot.budget in seen:
            raise EstimateError(f"pilot at {pilot.budget} labels is given twice; average the two")
        seen.add(pilot.budget)
        if not 0.0 <= pilot.score <= 1.0:
            raise EstimateError(
                f"pilot at {pilot.budget} labels: the score {pilot.score} is not in [0, 1]"
            )
        if pilot.n_test is not None and pilot.n_test < 1:
            raise EstimateError(f"pilot at {pilot.budget} labels: n_test is {pilot.n_test}")
    return zero_shot or 0.0
