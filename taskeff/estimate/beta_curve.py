"""The Beta curve, and the one closest to a measured curve: how early it rises and how suddenly.

scipy is imported when called: that takes half a second, which the power curve does not need.
"""

# pyright: basic
# scipy declares no types.

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from taskeff.curves.curve import Floats, TaskCurve
from taskeff.estimate.regression import expit, logit

ArrayLike = float | Floats


def beta_cdf(x: ArrayLike, area: ArrayLike, concentration: ArrayLike) -> Floats:
    """I_x(s(1-a), s a) for area a and concentration s: mean 1 - a, so the area under it is a."""
    from scipy.special import betainc

    area = np.clip(area, 1e-9, 1 - 1e-9)
    return betainc(concentration * (1 - area), concentration * area, np.clip(x, 0, 1))


def beta_quantile(share: ArrayLike, area: ArrayLike, concentration: ArrayLike) -> Floats:
    """The inverse of `beta_cdf` in x; NaN where `share` is above 1."""
    from scipy.special import betaincinv

    area = np.clip(area, 1e-9, 1 - 1e-9)
    x = betaincinv(concentration * (1 - area), concentration * area, np.clip(share, 0, 1))
    return np.where(np.asarray(share) > 1, np.nan, x)


@dataclass(frozen=True)
class Rise:
    """The Beta curve closest to a measured one.

    Attributes:
        area: area under the curve as a share of its own highest value, in (0, 1).
        concentration: how sudden the rise is, see `taskeff.estimate.shapes.Beta`.
        gain: (highest - zero_shot) / (1 - zero_shot), the share of the headroom gained at the cap.
        headroom: (ceiling - zero_shot) / (1 - zero_shot) of an a-priori ceiling; None without.
    """

    area: float
    concentration: float
    gain: float
    headroom: float | None


def fit_rise(curve: TaskCurve, ceiling: float | None = None) -> Rise | None:
    """The rise of one measured curve, by least squares over its points.

    Args:
        curve: the measured curve.
        ceiling: the ceiling known before anything was measured, if there was one; not the
            curve's own best score.

    Returns:
        None when the curve never rises above zero-shot, so that there is nothing to fit.
    """
    top = float(curve.y[-1])
    room = 1 - curve.zero_shot
    if top <= 0 or room <= 0:
        return None
    found = _closest(curve.x, curve.y / top)
    headroom = None if ceiling is None else max(ceiling - curve.zero_shot, 0.0) / room
    gain = top * (curve.ceiling - curve.zero_shot) / room
    return Rise(float(expit(found[0])), float(np.exp(found[1])), gain, headroom)


@dataclass(frozen=True)
class Misfit:
    """How far a measured curve is off its rise, in shares of its highest value.

    Only measured points strictly between zero-shot and the cap count: the others are given.

    Attributes:
        budgets: int64 [points], labels.
        curve: float64 [points], of the running maximum.
        scores: float64 [points], of the scores themselves, which may fall.
    """

    budgets: npt.NDArray[np.int64]
    curve: Floats
    scores: Floats


def misfit(curve: TaskCurve, rise: Rise) -> Misfit:
    """See `Misfit`."""
    measured = np.array([point.status == "measured" for point in curve.points])
    inner = (curve.x > 0) & (curve.x < 1) & measured
    smooth = beta_cdf(curve.x[inner], rise.area, rise.concentration)
    points = [point for point, kept in zip(curve.points, inner.tolist(), strict=True) if kept]
    raw = np.array([point.score for point in points], dtype=np.float64)
    top = float(curve.y[-1])
    return Misfit(
        np.array([point.budget for point in points], dtype=np.int64),
        curve.y[inner] / top - smooth,
        (raw - curve.zero_shot) / ((curve.ceiling - curve.zero_shot) * top) - smooth,
    )


def _closest(x: Floats, y: Floats) -> Floats:
    from scipy.optimize import least_squares

    def errors(theta: Floats) -> Floats:
        fitted = beta_cdf(x, float(expit(theta[0])), float(np.exp(theta[1])))
        # A faint pull to the middle settles curves with a single step, which any s fits.
        pull = np.array([theta[0], theta[1] - 1.5])
        return np.concatenate([fitted - y, 0.02 * pull])

    area = float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))
    start = np.array([float(logit(area)), 1.5])
    return least_squares(errors, start, bounds=((-6.0, -2.0), (6.0, 5.0))).x
