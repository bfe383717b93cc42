"""scipy's functions with the types that scipy itself does not declare; imported when called.

Importing scipy takes half a second, which the power curve does not need.
"""

# pyright: basic

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
ArrayLike = float | Floats


def clip(value: ArrayLike, low: float, high: float) -> Floats:
    """`value` moved into [low, high], as float64."""
    return np.clip(np.asarray(value, dtype=np.float64), low, high)


def logit(share: ArrayLike) -> Floats:
    """log(p / (1 - p)); p closer to 0 or 1 than half a percent counts as half a percent."""
    inner = clip(share, 0.005, 0.995)
    return np.log(inner / (1 - inner))


def expit(value: ArrayLike) -> Floats:
    """The inverse of `logit`."""
    return 1 / (1 + np.exp(-np.asarray(value, dtype=np.float64)))


def beta_cdf(x: ArrayLike, area: ArrayLike, concentration: ArrayLike) -> Floats:
    """I_x(s(1-a), s a) for area a and concentration s: mean 1 - a, so the area under it is a."""
    from scipy.special import betainc

    area = clip(area, 1e-9, 1 - 1e-9)
    return betainc(concentration * (1 - area), concentration * area, clip(x, 0, 1))


def beta_quantile(share: ArrayLike, area: ArrayLike, concentration: ArrayLike) -> Floats:
    """The inverse of `beta_cdf` in x; NaN where `share` is above 1."""
    from scipy.special import betaincinv

    area = clip(area, 1e-9, 1 - 1e-9)
    x = betaincinv(concentration * (1 - area), concentration * area, clip(share, 0, 1))
    return np.where(np.asarray(share) > 1, np.nan, x)


def minimise(function: Callable[[float], float], low: float, high: float) -> float:
    """Where in [low, high] a function of one number is smallest (Brent)."""
    from scipy.optimize import minimize_scalar

    result: Any = minimize_scalar(function, bounds=(low, high), method="bounded")
    return float(result.x)


def interpolate(at: Floats, x: Floats, y: Floats) -> Floats:
    """The broken line through (x, y) at `at`; x rising."""
    return np.interp(at, x, y)


def correlated_normal(covariance: Floats, draws: int, rng: np.random.Generator) -> Floats:
    """float64 [draws, dimensions] from a centred normal."""
    root = np.linalg.cholesky(covariance)
    return rng.standard_normal((draws, len(covariance))) @ root.T


def gram(columns: Floats) -> Floats:
    """columns^T columns."""
    return columns.T @ columns


def regress(design: Floats, target: Floats) -> Floats:
    """Least-squares coefficients; the smallest where the design leaves them open."""
    return np.asarray(np.linalg.lstsq(design, target, rcond=None)[0], dtype=np.float64)


def inverse_gram(design: Floats) -> Floats:
    """The (pseudo-)inverse of design^T design."""
    return np.asarray(np.linalg.pinv(gram(design)), dtype=np.float64)


def least_squares(
    errors: Callable[[Floats], Floats],
    start: Floats,
    low: Sequence[float],
    high: Sequence[float],
) -> Floats:
    """The parameters within [low, high] with the smallest sum of squared errors."""
    from scipy.optimize import least_squares as fit

    return fit(errors, start, bounds=(low, high)).x
