"""Straight-line fits of data efficiency on one measured quantity, and what they are worth."""

# pyright: basic
# numpy and scipy declare only a part of their types.

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from taskeff.curves.curve import Floats

FitKind = Literal["fractional", "logit", "ols"]
"""How AUC is fitted to a quantity: a logistic curve by quasi-likelihood, by least squares of
logit(AUC), or a straight line by least squares (the paper's)."""

_STEPS, _ROUNDING = 100, 1e-10


def logit(share: float | Floats) -> Floats:
    """log(p / (1 - p)); p closer to 0 or 1 than half a percent counts as half a percent."""
    inner = np.clip(share, 0.005, 0.995)
    return np.log(inner / (1 - inner))


def expit(value: float | Floats) -> Floats:
    """The inverse of `logit`, in numpy alone: see `taskeff.estimate.beta_curve` on scipy."""
    return 1 / (1 + np.exp(-np.asarray(value, dtype=np.float64)))


@dataclass(frozen=True)
class Worth:
    """What one quantity is worth as a predictor of AUC over the calibration tasks.

    Attributes:
        r: Pearson correlation with AUC; None where either does not vary.
        r_interval: 95 % bootstrap interval over tasks; None below four tasks.
        mae: mean absolute leave-one-task-out error in AUC.
    """

    r: float | None
    r_interval: tuple[float, float] | None
    mae: float

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {**asdict(self), "r_interval": self.r_interval and list(self.r_interval)}


@dataclass(frozen=True)
class AucEstimate:
    """A predicted data efficiency.

    Attributes:
        auc: the prediction, in (0, 1).
        interval: coverage level -> (low, high), jackknife+; None when the calibration keeps no
            residuals, with the reason in `interval_reason`.
        interval_reason: why there is no interval, else None.
        warnings: sentences for the user.
    """

    auc: float
    interval: dict[float, tuple[float, float]] | None
    interval_reason: str | None
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Line:
    """AUC = f(slope * x + intercept): f the identity for `ols`, else the logistic function."""

    kind: FitKind
    slope: float
    intercept: float

    def auc(self, x: float) -> float:
        """The predicted AUC."""
        value = self.slope * x + self.intercept
        return value if self.kind == "ols" else float(expit(value))

    def predict(self, x: float) -> float:
        """The prediction on the scale of `scale`."""
        return self.slope * x + self.intercept if self.kind == "logit" else self.auc(x)


def scale(kind: FitKind, auc: Floats) -> Floats:
    """AUC -> the scale on which the fit has its residuals: logits for `logit`."""
    return logit(auc) if kind == "logit" else auc


def unscale(kind: FitKind, value: Floats) -> Floats:
    """The inverse of `scale`."""
    return expit(value) if kind == "logit" else value


def fit_line(kind: FitKind, x: Floats, auc: Floats) -> Line:
    """The line through all tasks; flat at the mean when x does not vary by more than rounding."""
    middle, width = float(x.mean()), float(x.std())
    if width <= _ROUNDING * max(1.0, abs(middle)):
        width = math.inf
    z = (x - middle) / width
    if kind == "fractional":
        slope, level = _fit_fractional(z, auc)
    else:
        target = scale(kind, auc)
        slope, level = float(np.mean(z * target)), float(target.mean())
    return Line(kind, slope / width, level - slope / width * middle)


def _fit_fractional(z: Floats, auc: Floats) -> tuple[float, float]:
    """Slope and level at the maximum of the Bernoulli quasi-likelihood, by Newton's method.

    Papke & Wooldridge (1996). Its residuals are of the AUC, not of its logit: an area of 0 counts
    as 0, where least squares of the logit takes whatever its logit is cut off at.

    Args:
        z: float64 [tasks], the quantity with mean 0 and variance 1, or all 0.
    """
    share = expit(logit(auc))  # cut off, so that the maximum is finite

    def loss(slope: float, level: float) -> float:
        linear = level + slope * z
        return float(np.sum(np.logaddexp(0.0, linear) - share * linear))

    slope, level = 0.0, float(logit(share.mean()))
    for _ in range(_STEPS):
        mean = expit(level + slope * z)
        missed, weight = share - mean, mean * (1 - mean)
        a, b, c = (float(np.sum(weight * z**power)) for power in (0, 1, 2))
        up, across = float(np.sum(missed)), float(np.sum(missed * z))
        det = max(a * c - b * b, _ROUNDING)
        step = ((a * across - b * up) / det, (c * up - b * across) / det)
        # A step too far is taken back; what rounding adds to the loss is no reason to.
        while loss(slope + step[0], level + step[1]) > loss(slope, level) + _ROUNDING:
            step = (step[0] / 2, step[1] / 2)
        slope, level = slope + step[0], level + step[1]
        if max(map(abs, step)) < _ROUNDING:
            break
    return slope, level


def measure_worth(kind: FitKind, x: Floats, auc: Floats, seed: int) -> Worth:
    """See `Worth`; `seed` is the bootstrap's."""
    r = pearson(x, auc)
    error = float(np.mean(np.abs(auc - left_out_predictions(kind, x, auc))))
    return Worth(None if math.isnan(r) else r, bootstrap_interval(x, auc, seed), error)


def leave_one_out(kind: FitKind, x: Floats, auc: Floats) -> list[Line]:
    """The lines fitted to all tasks but one; entry i leaves out task i. At least two tasks."""
    keep = ~np.eye(len(x), dtype=bool)
    return [fit_line(kind, x[row], auc[row]) for row in keep]


def left_out_predictions(kind: FitKind, x: Floats, auc: Floats) -> Floats:
    """float64 [tasks]: each task's AUC predicted from the others."""
    lines = leave_one_out(kind, x, auc)
    return np.array([line.auc(float(value)) for line, value in zip(lines, x, strict=True)])


def left_out_means(auc: Floats) -> Floats:
    """float64 [tasks]: the mean AUC of the other tasks, the baseline to beat."""
    return (auc.sum() - auc) / (len(auc) - 1)


def jackknife_plus(
    lines: Sequence[Line], x: Floats, auc: Floats, at: float, level: float
) -> tuple[float, float]:
    """Jackknife+ interval of the AUC at `at` (Barber et al. 2021, equation 1.4).

    It covers at least 2 * level - 1 whatever the distribution, and about `level` in practice;
    with few tasks and a high level it is all of [0, 1].

    Args:
        lines: those of `leave_one_out`; residuals are taken on their `scale`.
        x: float64 [tasks], the measured quantity; `auc` alike.
        at: where to predict.
        level: wanted coverage, in (0, 1).
    """
    kind = lines[0].kind
    pairs = zip(lines, x, scale(kind, auc), strict=True)
    residuals = np.array([abs(float(t) - line.predict(float(v))) for line, v, t in pairs])
    centres = np.array([line.predict(at) for line in lines])
    low, high = np.sort(centres - residuals), np.sort(centres + residuals)
    rank = int(np.floor((1 - level) * (len(x) + 1)))
    if rank < 1:
        return 0.0, 1.0
    ends = unscale(kind, np.array([low[rank - 1], high[len(x) - rank]]))
    return max(0.0, float(ends[0])), min(1.0, float(ends[1]))


def pearson(x: Floats, y: Floats) -> float:
    """The correlation of x and y; NaN where either does not vary."""
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > 0 else float("nan")


def bootstrap_interval(
    x: Floats,
    y: Floats,
    seed: int,
    statistic: Callable[[Floats, Floats], float] = pearson,
    *,
    level: float = 0.95,
    draws: int = 2000,
) -> tuple[float, float] | None:
    """Percentile bootstrap over tasks of a statistic of (x, y); None below four tasks.

    Draws in which the statistic is not defined (all the same task, say) are left out.
    """
    if len(x) < 4:
        return None
    rows = np.random.default_rng(seed).integers(0, len(x), size=(draws, len(x)))
    values = np.array([statistic(x[row], y[row]) for row in rows])
    values = values[np.isfinite(values)]
    if values.size == 0:
        return None
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def dfbetas(x: Floats, y: Floats) -> Floats:
    """float64 [tasks]: by how many standard errors the slope moves when a task is left out.

    Belsley, Kuh & Welsch (1980); NaN with fewer than four tasks.
    """
    n = len(x)
    if n < 4:
        return np.full(n, np.nan)
    centred = x - x.mean()
    spread = float(centred @ centred)
    if spread == 0:
        return np.full(n, np.nan)
    line = fit_line("ols", x, y)
    residuals = y - (line.slope * x + line.intercept)
    leverage = 1 / n + centred**2 / spread
    # A task alone at its x has leverage 1: the slope is its own doing.
    free = np.maximum(1 - leverage, 1e-12)
    variance = np.maximum((residuals @ residuals - residuals**2 / free) / (n - 3), 1e-300)
    return centred * residuals / free / np.sqrt(variance * spread)
