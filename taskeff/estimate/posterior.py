"""From what is known of a task to a distribution over its whole curve.

A task's curve is v * B(x; a, s) + roughness: B the Beta curve of area a and concentration s, v the
share of the headroom above zero-shot gained at the cap, and the roughness an independent normal
departure at every budget but the cap. A new task's (a, s, v) are drawn from the family's prior,
given its signals, and weighed by its pilot scores.
"""

# pyright: basic
# numpy and scipy declare only a part of their types.

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
"""Test examples assumed behind a score that does not say."""


@dataclass(frozen=True)
class Score:
    """A measured score in [0, 1] and the test examples behind it, None when unknown.

    Examples:
        >>> taskeff.predict(pilots=[(50, 0.61)], zero_shot=taskeff.Score(0.42, 200)).zero_shot
        0.42
    """

    score: float
    n_test: int | None = None


@dataclass(frozen=True)
class Pilot:
    """A fine-tune already made on the task.

    Attributes:
        budget: labels it was trained on, at least 1.
        score: its test score, in [0, 1].
        n_test: number of test examples behind the score; None when unknown.

    Examples:
        >>> pilot = taskeff.Pilot(50, 0.61, 200)
        >>> taskeff.predict(pilots=[pilot], zero_shot=0.42, target=0.5).reachable
        True
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


@dataclass(frozen=True)
class AreaEvidence:
    """A normal opinion of the area from a line fitted to other tasks, as published ones are.

    Attributes:
        mean, sd: of the area, given CoS-Low alone.
        plain: the prior without CoS-Low. What the line adds to it is the ratio of the two
            densities of the area, which also stands beside other evidence.
    """

    mean: float
    sd: float
    plain: CurvePrior


def update(
    prior: CurvePrior,
    signals: Mapping[str, float],
    *,
    cap: int,
    pilots: Sequence[Pilot] = (),
    zero_shot: Score | None = None,
    ceiling: float | None = None,
    area: AreaEvidence | None = None,
    as_measured: bool = False,
    seed: int = 0,
    draws: int = DRAWS,
) -> Posterior:
    """The task's curves, given what is known of it.

    The true score at a pilot's budget is drawn from what the curve and the test rows say of it
    together, the true zero-shot score from its test rows; a budget not measured has the noise of
    a test of `N_TEST` rows, as the calibration's curves had.

    Args:
        prior: the family's prior.
        signals: the prior's signals of this task, CoS-Low for one.
        cap: the largest budget, in labels.
        pilots: scores measured so far, one a budget.
        zero_shot: zero-shot score; needed with pilots.
        ceiling: a-priori ceiling; None is one like the calibration tasks'. A curve that passes it
            raises it.
        area: a further opinion of the area.
        as_measured: whether the curve asked for is the one that runs through the measured scores
            themselves, noise and all, as that of a calibration task does.
        seed: seed of the draws.
        draws: number of prior draws, and of posterior ones.

    Raises:
        EstimateError: pilots without zero-shot score, or a value out of range.
    """
    check(pilots, zero_shot, ceiling, cap)
    rng = np.random.default_rng(seed)
    base = np.zeros(draws)
    if zero_shot is not None:
        base = np.full(draws, zero_shot.score)
        if not as_measured:
            base = _true_share(zero_shot, draws, rng)
    room = 1 - base
    headroom = None
    if ceiling is not None and zero_shot is not None:
        headroom = np.maximum((ceiling - base) / room, 1e-3)
    budgets = sorted(
        n for n in {*prior.shape.budgets, *(p.budget for p in pilots), cap} if n <= cap
    )
    x = np.log2(np.array(budgets, dtype=np.float64)) / np.log2(cap)
    smooth, gain = _smooth(prior, signals, headroom, x, draws, rng)
    # The gain is what the highest point of the curve gained, so the cap itself is not rough.
    spread = np.where(x < 1, prior.shape.roughness, 0.0) * gain[:, None]
    if not as_measured:
        score = base[:, None] + room[:, None] * smooth
        test = np.sqrt(score * (1 - score) / N_TEST) / room[:, None]
        spread = np.hypot(spread, np.where(x < 1, test, 0.0))
    held = _held(prior, headroom, draws)
    at = [budgets.index(pilot.budget) for pilot in pilots]
    expected = base[:, None] + room[:, None] * smooth[:, at]
    scatter = prior.shape.score_scatter([p.budget for p in pilots]) * (gain * room)[:, None]
    logs = _likelihood(expected, scatter, pilots)
    if area is not None:
        plain, _ = _smooth(area.plain, {}, headroom, x, draws, rng)
        before = _shares(plain, _held(area.plain, headroom, draws), x)[1]
        logs = logs + _opinion(area, _shares(smooth, held, x)[1], before)
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    picked = rng.choice(draws, size=draws, p=weights)
    level = smooth[picked] + rng.standard_normal(smooth.shape) * spread[picked]
    base, room, held = base[picked], room[picked], held[picked]
    for i, pilot in enumerate(pilots):
        true = np.full(draws, pilot.score)
        if not as_measured:
            true = _true_score(pilot, expected[picked, i], scatter[picked, i], rng)
        level[:, at[i]] = (true - base) / room
    share, auc, top = _shares(level, held, x)
    x = np.concatenate([[0.0], x])
    return Posterior(x, share, auc, top, cap, float(1 / np.sum(weights**2)))


def _smooth(
    prior: CurvePrior,
    signals: Mapping[str, float],
    headroom: Floats | None,
    x: Floats,
    draws: int,
    rng: np.random.Generator,
) -> tuple[Floats, Floats]:
    """Curves without roughness drawn from the prior: float64 [draws, len(x)] gains, and at 1."""
    usual = None if headroom is None else float(np.mean(headroom))
    area, concentration, gain = prior.draw(signals, usual, draws, rng)
    rise = beta_cdf(x[None, :], area[:, None], concentration[:, None])
    return rise * gain[:, None], gain


def _held(prior: CurvePrior, headroom: Floats | None, draws: int) -> Floats:
    """float64 [draws]: the ceiling's share of the headroom; the calibration's if not known."""
    if headroom is not None:
        return headroom
    return np.full(draws, 1e-9 if prior.ceiling_logit is None else expit(prior.ceiling_logit))


def _shares(level: Floats, headroom: Floats, x: Floats) -> tuple[Floats, Floats, Floats]:
    """Gains in shares of the headroom -> share of the range with x = 0 before it, area, top."""
    level = np.maximum.accumulate(np.clip(level, 0.0, 1.0), axis=1)
    top = np.maximum(level[:, -1], headroom)
    share = np.concatenate([np.zeros((len(level), 1)), level / top[:, None]], axis=1)
    auc = ((share[:, 1:] + share[:, :-1]) / 2) @ np.diff(np.concatenate([[0.0], x]))
    return share, auc, top


def _true_share(score: Score, draws: int, rng: np.random.Generator) -> Floats:
    """float64 [draws]: what a score on so many rows says of the true one (Jeffreys' prior)."""
    tests = score.n_test or N_TEST
    right = score.score * tests
    return np.minimum(rng.beta(right + 0.5, tests - right + 0.5, draws), 0.999)


def _variances(pilots: Sequence[Pilot]) -> tuple[Floats, Floats]:
    """Scores and their binomial variances, float64 [pilots] each."""
    scores = np.array([pilot.score for pilot in pilots], dtype=np.float64)
    tests = np.array([pilot.n_test or N_TEST for pilot in pilots], dtype=np.float64)
    # Agresti-Coull: a score of 0 or 1 on few examples is not a certainty.
    smoothed = (scores * tests + 2) / (tests + 4)
    return scores, smoothed * (1 - smoothed) / tests


def _likelihood(expected: Floats, scatter: Floats, pilots: Sequence[Pilot]) -> Floats:
    """float64 [draws]: log likelihood of the pilots; 0 without any.

    Args:
        expected: float64 [draws, pilots], the smooth curves' scores.
        scatter: float64 [draws, pilots], of single runs around them.
        pilots: what was measured.
    """
    scores, binomial = _variances(pilots)
    variance = binomial[None, :] + scatter**2
    return -0.5 * np.sum((scores - expected) ** 2 / variance + np.log(variance), axis=1)


def _true_score(
    pilot: Pilot, expected: Floats, scatter: Floats, rng: np.random.Generator
) -> Floats:
    """float64 [draws]: the run's true score, between the curve's and the measured one."""
    (score,), (binomial,) = _variances([pilot])
    kept = scatter**2 / (scatter**2 + binomial)
    noise = np.sqrt(kept * binomial) * rng.standard_normal(len(kept))
    return expected + kept * (score - expected) + noise


def _opinion(area: AreaEvidence, auc: Floats, before: Floats) -> Floats:
    """float64 [draws]: log of how much likelier the opinion makes each area than the prior did.

    Args:
        area: the opinion.
        auc: float64 [draws], the areas to weigh.
        before: float64 [draws], areas drawn from the plain prior.
    """
    from scipy.stats import gaussian_kde

    grid = np.linspace(0, 1, 201)
    density = np.interp(auc, grid, gaussian_kde(before)(grid))
    # A floor keeps areas that the prior has hardly any draws of from outweighing all others.
    return -0.5 * ((auc - area.mean) / area.sd) ** 2 - np.log(density + 1e-3)


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


def labels_interval(labels: Floats, level: float, cap: int) -> tuple[float, float | None]:
    """`interval` of numbers of labels, infinite beyond the cap: its low end is the cap at most."""
    low, high = interval(labels, level)
    return min(low, float(cap)), high


def narrowing(values: Floats, by: Floats) -> float:
    """By how much knowing `by` is expected to lower the variance of `values`, a draw each.

    The draws are put into twenty bins by `by`; what spread stays within them it leaves open.
    """
    bins = np.array_split(values[np.argsort(by)], 20)
    return float(np.var(values)) - float(np.mean([np.var(part) for part in bins]))


def check(
    pilots: Sequence[Pilot], zero_shot: Score | None, ceiling: float | None, cap: int
) -> None:
    """Refuse scores and budgets that are out of range.

    Raises:
        EstimateError: naming the one, and what it may be.
    """
    base = 0.0 if zero_shot is None else zero_shot.score
    if not 0.0 <= base < 1.0:
        raise EstimateError(f"the zero-shot score {base} is not in [0, 1)")
    if zero_shot is not None and zero_shot.n_test is not None and zero_shot.n_test < 1:
        raise EstimateError(f"the zero-shot score: n_test is {zero_shot.n_test}")
    if ceiling is not None and not base < ceiling <= 1.0:
        raise EstimateError(
            f"the ceiling {ceiling} is not above the zero-shot score {base} and at most 1"
        )
    if pilots and zero_shot is None:
        raise EstimateError(
            "pilots need the score before any fine-tune beside them: score the model as it is on "
            "the pilots' test rows and give it as --zero-shot SCORE:N_TEST"
        )
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
