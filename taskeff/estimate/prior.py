"""What a family's calibration tasks say of a new task's curve before any pilot.

Over calibration tasks (logit a, log s, logit v) of `Rise` is taken as normal around a line in
CoS-Low, and a new task as a draw from its predictive distribution under the usual flat prior: a
multivariate t, which carries the uncertainty of the line itself.
"""

# pyright: basic
# numpy and scipy declare only a part of their types.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from taskeff.curves.curve import Floats
from taskeff.errors import EstimateError
from taskeff.estimate.beta_curve import Rise
from taskeff.estimate.regression import expit, logit
from taskeff.estimate.shapes import Beta

MIN_RISES = 8
"""Tasks with a rise that a prior takes: fewer say too little of a scatter in three dimensions."""


@dataclass(frozen=True)
class CurvePrior:
    """What the calibration tasks say of a new task's curve before any pilot.

    Attributes:
        coefficients: float64 [features, 3]: (logit a, log s, logit v) on the features
            (1, CoS-Low, a-priori ceiling), the last as logit of its share of the headroom; the
            second is there if `uses_cos_low`, the last if the tasks have ceilings that differ.
        scale: float64 [3, 3], scatter of the tasks around them.
        freedom: degrees of freedom of the predictive t.
        gram_inverse: float64 [features, features], inverse Gram matrix of the features.
        ceiling_logit: mean logit of the ceilings' share of the headroom; None if tasks have none.
        shape: the family of curves, with its roughness.
        uses_cos_low: whether CoS-Low is among the features.
    """

    coefficients: Floats
    scale: Floats
    freedom: int
    gram_inverse: Floats
    ceiling_logit: float | None
    shape: Beta
    uses_cos_low: bool = True

    def draw(
        self, cos_low: float | None, headroom: float | None, draws: int, rng: np.random.Generator
    ) -> tuple[Floats, Floats, Floats]:
        """Areas, concentrations and gains, float64 [draws] each, of a task with this CoS-Low.

        Args:
            cos_low: None for a prior fitted without it.
            headroom: (ceiling - zero_shot) / (1 - zero_shot); None when unknown.

        Raises:
            EstimateError: `cos_low` is missing, or is given to a prior fitted without it.
        """
        if (cos_low is not None) != self.uses_cos_low:
            raise EstimateError(
                "this prior needs a CoS-Low" if self.uses_cos_low else "this prior takes no CoS-Low"
            )
        features = [1.0] if cos_low is None else [1.0, cos_low]
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


def fit_prior(rises: Sequence[Rise], cos_low: Sequence[float] | None, shape: Beta) -> CurvePrior:
    """The prior of a family from its calibration tasks.

    Args:
        rises: one fitted rise a task.
        cos_low: CoS-Low of each, in the same order; None to leave it out.
        shape: the family of curves, from `fit_shape`.

    Raises:
        EstimateError: fewer than eight tasks, too few for a scatter in three dimensions.
    """
    if len(rises) < MIN_RISES:
        raise EstimateError(
            f"{len(rises)} calibration tasks have a measured rise; pilots and curve intervals "
            "need eight"
        )
    theta = np.stack(
        [
            logit(np.array([rise.area for rise in rises])),
            np.log(np.array([rise.concentration for rise in rises])),
            logit(np.array([rise.gain for rise in rises])),
        ],
        axis=1,
    )
    columns = [np.ones(len(rises))]
    if cos_low is not None:
        columns.append(np.asarray(cos_low, dtype=np.float64))
    design = np.stack(columns, axis=1)
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
        uses_cos_low=cos_low is not None,
    )


def _beyond(headroom: float | None, usual: float | None) -> float:
    return 0.0 if headroom is None or usual is None else float(logit(headroom)) - usual
