"""Curve families: how a task of a given area rises from zero-shot (0) to its ceiling (1).

Every family is a set of monotone curves p on [0, 1] with p(0) = 0 and p(1) = 1, indexed by their
area a in (0, 1): x is log2(labels) as a share of log2(cap), p(x) the share of the range reached.
"""

# pyright: basic
# numpy and scipy declare only a part of their types.

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from taskeff.curves.curve import Floats, TaskCurve
from taskeff.errors import EstimateError
from taskeff.estimate.beta_curve import (
    ArrayLike,
    Rise,
    beta_cdf,
    beta_quantile,
    fit_rise,
    misfit,
)

_STEADY = 10


class CurveShape(Protocol):
    """One curve family. All arguments broadcast; results are float64 arrays."""

    kind: ClassVar[str]
    """The family's name in `calibration.json`."""

    def value(self, x: ArrayLike, area: ArrayLike) -> Floats:
        """Share of the range reached at `x` by the curve of this area."""
        ...

    def inverse(self, share: ArrayLike, area: ArrayLike) -> Floats:
        """The x at which the curve of this area reaches `share`; NaN where share is above 1."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """The family's parameters as plain JSON values."""
        ...


@dataclass(frozen=True)
class Power:
    """The paper's curve p(x) = x^((1-a)/a) (arXiv 2512.24991, section 5)."""

    kind: ClassVar[str] = "power"

    def value(self, x: ArrayLike, area: ArrayLike) -> Floats:
        """Share of the range reached at `x`, both in [0, 1]."""
        area = np.clip(area, 1e-9, 1 - 1e-9)
        return np.power(np.clip(x, 0, 1), (1 - area) / area)

    def inverse(self, share: ArrayLike, area: ArrayLike) -> Floats:
        """x = share^(a/(1-a)); NaN where `share` is above 1."""
        area = np.clip(area, 1e-9, 1 - 1e-9)
        x = np.power(np.clip(share, 0, 1), area / (1 - area))
        return np.where(np.asarray(share) > 1, np.nan, x)

    def to_dict(self) -> dict[str, Any]:
        """No parameters."""
        return {}


@dataclass(frozen=True)
class Beta:
    """p(x) = I_x(s(1-a), s a): the Beta distribution function whose mean is 1 - a.

    Its area is a for every concentration s, so that one more number, fitted per family, sets how
    sudden the rise is: s -> 0 jumps at both ends, s -> infinity is a step at 1 - a.

    Attributes:
        concentration: s, above 0.
        roughness: standard deviation of measured curves (running maxima) around the smooth one, in
            shares of their highest value; 0 when not fitted.
        budgets: the family's measured budgets, in labels: curves are straight between them.
        scatter: the same of the scores themselves, which may fall, at each of `budgets`; empty
            when not fitted, which counts as the roughness everywhere.
        seed_spread: standard deviation, in the same shares, that a single run has on top of curves
            averaged over as many seeds as the calibration's; 0 where those are of one seed, whose
            roughness holds it already.
    """

    concentration: float
    roughness: float = 0.0
    budgets: tuple[int, ...] = ()
    scatter: tuple[float, ...] = ()
    seed_spread: float = 0.0
    kind: ClassVar[str] = "beta"

    def __post_init__(self) -> None:
        if not 0 < self.concentration < np.inf:
            raise EstimateError(
                f"the Beta curve's concentration {self.concentration} is not above 0"
            )
        if self.scatter and len(self.scatter) != len(self.budgets):
            raise EstimateError(
                f"the Beta curve has {len(self.scatter)} scatters for {len(self.budgets)} budgets"
            )

    def value(self, x: ArrayLike, area: ArrayLike) -> Floats:
        """Share of the range reached at `x`, both in [0, 1]."""
        return beta_cdf(x, area, self.concentration)

    def inverse(self, share: ArrayLike, area: ArrayLike) -> Floats:
        """The exact inverse; NaN where `share` is above 1."""
        return beta_quantile(share, area, self.concentration)

    def score_scatter(self, budgets: Sequence[int]) -> Floats:
        """float64 [budgets]: standard deviation of a single run's score around the smooth curve.

        Straight in log2 n between the family's budgets, level beyond them.
        """
        known = np.full(len(budgets), self.roughness)
        if self.scatter:
            known = np.interp(
                np.log2(np.array(budgets, dtype=np.float64)),
                np.log2(np.array(self.budgets, dtype=np.float64)),
                np.array(self.scatter, dtype=np.float64),
            )
        return np.hypot(known, self.seed_spread)

    def to_dict(self) -> dict[str, Any]:
        """All parameters."""
        return {
            "concentration": self.concentration,
            "roughness": self.roughness,
            "budgets": list(self.budgets),
            "scatter": list(self.scatter),
            "seed_spread": self.seed_spread,
        }


def shape_from_dict(kind: str, parameters: Mapping[str, Any]) -> CurveShape:
    """The family named `kind` with the parameters of its `to_dict`.

    Raises:
        EstimateError: an unknown kind, or a parameter missing.
    """
    if kind == "power":
        return Power()
    if kind != "beta":
        raise EstimateError(f"curve {kind!r} is not known; choose 'power' or 'beta'")
    try:
        return Beta(
            float(parameters["concentration"]),
            float(parameters["roughness"]),
            tuple(int(n) for n in parameters["budgets"]),
            tuple(float(v) for v in parameters.get("scatter", ())),
            float(parameters.get("seed_spread", 0.0)),
        )
    except KeyError as error:
        raise EstimateError(f"curve 'beta' has no {error}; calibrate the family again") from None


def rises_at_all(curve: TaskCurve) -> bool:
    """Whether a curve's shape can be told: it leaves zero-shot, and not at the first label."""
    return 0 < curve.auc < float(curve.y[-1])


def fit_shape(
    curves: Sequence[TaskCurve], kind: str = "beta", rises: Sequence[Rise | None] | None = None
) -> CurveShape:
    """The member of a family of curves closest to measured ones.

    Each curve is matched by c p(x) with its own c (the share reached at the cap) and its own area
    A = c a, so that what is left to fit, by least squares over every point of every curve, is the
    one number the curves share. The roughness is the spread of what is left when every curve
    takes its own concentration too.

    Args:
        curves: measured curves; those without any rise say nothing and are skipped.
        kind: ``beta`` or ``power`` (which has nothing to fit).
        rises: `fit_rise` of every curve, where it is known already.

    Raises:
        EstimateError: no curve rises, or an unknown kind.
    """
    if kind == "power":
        return Power()
    if kind != "beta":
        raise EstimateError(f"curve {kind!r} is not known; choose 'power' or 'beta'")
    risen = list(filter(rises_at_all, curves))
    if not risen:
        raise EstimateError("no measured curve rises above zero-shot: cannot fit a curve shape")

    from scipy.optimize import minimize_scalar

    def distance(log_concentration: float) -> float:
        s = float(np.exp(log_concentration))
        total = 0.0
        for curve in risen:
            plateau = float(curve.y[-1])
            fitted = plateau * beta_cdf(curve.x, curve.auc / plateau, s)
            total += float(np.mean((curve.y - fitted) ** 2))
        return total

    bounds = (float(np.log(0.05)), float(np.log(200.0)))
    closest: Any = minimize_scalar(distance, bounds=bounds, method="bounded")
    s = float(np.exp(closest.x))
    counts = Counter(p.budget for c in risen for p in c.points if p.budget > 0)
    budgets = tuple(sorted(n for n, count in counts.items() if 2 * count >= len(risen)))
    if rises is None:
        rises = [fit_rise(curve) for curve in curves]
    roughness, scatter = _departures(curves, rises, budgets)
    return Beta(s, roughness, budgets, scatter, _seed_spread(risen))


def _departures(
    curves: Sequence[TaskCurve], rises: Sequence[Rise | None], budgets: Sequence[int]
) -> tuple[float, tuple[float, ...]]:
    """Root mean square departures from the rises, two numbers fitted to each curve.

    Returns:
        Of the running maxima, over all budgets; and of the scores at each budget, drawn towards
        that over all budgets as if by `_STEADY` more points: few tasks say little of one budget.
    """
    found = [misfit(c, rise) for c, rise in zip(curves, rises, strict=True) if rise is not None]
    count = sum(len(off.curve) for off in found)
    free = sum(max(len(off.curve) - 2, 0) for off in found)
    if not free:
        return 0.0, ()
    # What two fitted numbers have taken away is given back alike at every budget.
    lost = count / free
    roughness = np.sqrt(sum(float(off.curve @ off.curve) for off in found) / free)
    at = np.concatenate([off.budgets for off in found])
    squares = np.concatenate([off.scores for off in found]) ** 2
    overall = float(np.mean(squares))
    scatter = [
        (float(np.sum(squares[at == n])) + _STEADY * overall) / (int(np.sum(at == n)) + _STEADY)
        for n in budgets
    ]
    return float(roughness), tuple(float(np.sqrt(lost * variance)) for variance in scatter)


def _seed_spread(curves: Sequence[TaskCurve]) -> float:
    """Pooled over budgets and tasks; see `Beta.seed_spread`."""
    squares, free = 0.0, 0
    for curve in curves:
        unit = float(curve.y[-1]) * (curve.ceiling - curve.zero_shot)
        for point in curve.points:
            if point.budget > 0 and point.spread is not None:
                # A run is off the mean of k runs by what their mean has not averaged out.
                squares += (point.seeds - 1) * (1 - 1 / point.seeds) * (point.spread / unit) ** 2
                free += point.seeds - 1
    return float(np.sqrt(squares / free)) if free else 0.0
