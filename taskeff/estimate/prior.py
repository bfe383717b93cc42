"""What a family's calibration tasks say of a new task's curve before any pilot.

Over calibration tasks (logit a, log s, logit v) of `Rise` is taken as normal around a plane in
whatever signals are at hand (CoS-Low, a sibling's area and share at the cap, or none), and a new
task as a draw from its predictive distribution under the usual flat prior: a multivariate t, which
carries the uncertainty of the plane itself.
"""

# pyright: basic
# numpy and scipy declare only a part of their types.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from taskeff.curves.curve import Floats
from taskeff.errors import EstimateError
from taskeff.estimate.beta_curve import Rise
from taskeff.estimate.regression import expit, logit
from taskeff.estimate.shapes import Beta

MIN_RISES = 8
"""Tasks with a rise that a prior takes, beside a ceiling and one signal (a task more for each
further one): fewer say too little of a scatter in three dimensions."""


@dataclass(frozen=True)
class CurvePrior:
    """What the calibration tasks say of a new task's curve before any pilot.

    Attributes:
        coefficients: float64 [features, 3]: (logit a, log s, logit v) on the features (1, the
            signals, a-priori ceiling), the last as logit of its share of the headroom and only
            there if the tasks have ceilings that differ.
        scale: float64 [3, 3], scatter of the tasks around them.
        freedom: degrees of freedom of the predictive t.
        gram_inverse: float64 [features, features], inverse Gram matrix of the features.
        ceiling_logit: mean logit of the ceilings' share of the headroom; None if tasks have none.
        shape: the family of curves, with its roughness.
        signals: names of the signals, in the order of their features.
    """

    coefficients: Floats
    scale: Floats
    freedom: int
    gram_inverse: Floats
    ceiling_logit: float | None
    shape: Beta
    signals: tuple[str, ...] = ()

    def draw(
        self,
        signals: Mapping[str, float],
        headroom: float | None,
        draws: int,
        rng: np.random.Generator,
    ) -> tuple[Floats, Floats, Floats]:
        """Areas, concentrations and gains, float64 [draws] each, of a task with these signals.

        Args:
            signals: exactly those of the prior.
            headroom: (ceiling - zero_shot) / (1 - zero_shot); None when unknown.

        Raises:
            EstimateError: a signal is missing, or is given to a prior fitted without it.
        """
        if set(signals) != set(self.signals):
            wanted = " and ".join(self.signals) or "no signal"
            raise EstimateError(f"this prior takes {wanted}, not {' and '.join(signals) or 'none'}")
        features = [1.0, *(signals[name] for name in self.signals)]
        if len(self.coefficients) > len(features):
            # A ceiling not known is taken to be the calibration tasks' usual one.
            features.append(_beyond(headroom, self.ceiling_logit))
        row = np.array(features)
        spread = self.scale * (1 + float(row @ self.gram_inverse @ row)) / self.freedom
        normal = rng.standard_normal((draws, 3)) @ np.linalg.cholesky(spread).T
        wide = np.sqrt(self.freedom / rng.chisquare(self.freedom, size=draws))
        theta = row @ self.coefficients + normal * wide[:, None]
        return (
            expit(theta[:, 0]),
            np.exp(np.clip(theta[:, 1], -2.0, 5.0)),
            expit(theta[:, 2]),
        )

    def to_dict(self) -> dict[str, Any]:
        """All parameters as plain JSON values."""
        arrays = {k: v.tolist() for k, v in asdict(self).items() if isinstance(v, np.ndarray)}
        return {
            **arrays,
            "freedom": self.freedom,
            "ceiling_logit": self.ceiling_logit,
            "signals": list(self.signals),
        }

    @staticmethod
    def from_dict(value: Mapping[str, Any], shape: Beta) -> CurvePrior:
        """The prior whose `to_dict` this is; the shape stands beside it."""
        arrays = {
            name: np.array(value[name], dtype=np.float64)
            for name in ("coefficients", "scale", "gram_inverse")
        }
        return CurvePrior(
            **arrays,
            freedom=int(value["freedom"]),
            ceiling_logit=value["ceiling_logit"],
            shape=shape,
            signals=tuple(value["signals"]),
        )


def fit_prior(
    rises: Sequence[Rise], signals: Mapping[str, Sequence[float]], shape: Beta
) -> CurvePrior:
    """The prior of a family from its calibration tasks.

    Args:
        rises: one fitted rise a task.
        signals: name -> its value for each, in the same order.
        shape: the family of curves, from `fit_shape`.

    Raises:
        EstimateError: fewer than eight tasks, too few for a scatter in three dimensions.
    """
    if len(rises) < (needed := MIN_RISES + max(0, len(signals) - 1)):
        raise EstimateError(
            f"{len(rises)} calibration tasks have a measured rise; pilots and curve intervals "
            f"need {needed}"
        )
    theta = np.stack(
        [
            logit(np.array([rise.area for rise in rises])),
            np.log(np.array([rise.concentration for rise in rises])),
            logit(np.array([rise.gain for rise in rises])),
        ],
        axis=1,
    )
    columns = [np.asarray(values, dtype=np.float64) for values in signals.values()]
    design = np.stack([np.ones(len(rises)), *columns], axis=1)
    rising = design.shape[1]
    known = [float(logit(rise.headroom)) for rise in rises if rise.headroom is not None]
    middle = float(np.mean(known)) if 2 * len(known) >= len(rises) else None
    if middle is not None and float(np.std(known)) > 1e-6:
        extra = np.array([_beyond(rise.headroom, middle) for rise in rises])
        design = np.concatenate([design, extra[:, None]], axis=1)
    coefficients = np.zeros((design.shape[1], 3))
    # The a-priori ceiling speaks of how high the curve goes, not of how it gets there.
    for column, width in ((0, rising), (1, rising), (2, design.shape[1])):
        solved = np.linalg.lstsq(design[:, :width], theta[:, column], rcond=None)[0]
        coefficients[:width, column] = solved
    errors = theta - design @ coefficients
    # A floor of a hundredth of a unit keeps tasks that agree exactly from claiming certainty.
    scale = errors.T @ errors + 1e-4 * np.eye(3)
    return CurvePrior(
        coefficients=coefficients,
        scale=scale,
        freedom=len(rises) - design.shape[1] - 2,
        gram_inverse=np.linalg.pinv(design.T @ design),
        ceiling_logit=middle,
        shape=shape,
        signals=tuple(signals),
    )


def _beyond(headroom: float | None, usual: float | None) -> float:
    return 0.0 if headroom is None or usual is None else float(logit(headroom)) - usual
