"""Predictors of labels needed, ours and simpler ones, behind one interface.

A predictor is fitted on other tasks and asked about one it has not seen: it is shown a `Question`
and nothing else, so that no task's own ceiling or larger budgets can leak into its answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.optimize import minimize_scalar

from taskeff.curves.curve import Floats, TaskCurve
from taskeff.estimate.beta_curve import Rise
from taskeff.estimate.budget import CurveKind, predict
from taskeff.estimate.calibration import Calibration, fit_calibration
from taskeff.estimate.folders import MeasuredTask
from taskeff.estimate.points import TaskPoint
from taskeff.estimate.posterior import Pilot, Score
from taskeff.estimate.regression import FitKind
from taskeff.estimate.scoring import Answer, answer_of, mean_of
from taskeff.estimate.shapes import Beta, CurveShape, Power, fit_shape
from taskeff.estimate.sibling import Sibling


@dataclass(frozen=True)
class Case:
    """A task whose answer is known.

    Attributes:
        curve: its measured curve.
        scores: budget -> measured score, in [0, 1].
        cos_low: its CoS-Low; None where not measured.
        ceiling: its ceiling as known before measuring; None without.
        rise: `fit_rise` of the curve.
    """

    curve: TaskCurve
    scores: Mapping[int, float]
    cos_low: float | None
    ceiling: float | None
    rise: Rise | None

    @property
    def measured(self) -> MeasuredTask:
        """What a family keeps of it."""
        curve = self.curve
        point = TaskPoint(curve.name, curve.auc, self.cos_low, curve.status, rise=self.rise)
        return MeasuredTask(curve, point, self.ceiling)


@dataclass(frozen=True)
class Fold:
    """The tasks a predictor is fitted on."""

    cases: Sequence[Case]

    @cached_property
    def cap(self) -> int:
        """The largest budget of the curves, in labels."""
        return self.cases[0].curve.cap

    @cached_property
    def grid(self) -> tuple[int, ...]:
        """Budgets measured on at least half of the tasks, in labels."""
        return self._shape.budgets if isinstance(self._shape, Beta) else ()

    @cached_property
    def calibration(self) -> Calibration:
        """Their calibration, made as a user's own would be."""
        return self.calibrate("fractional")

    def calibrate(self, kind: FitKind) -> Calibration:
        """The same with another fit."""
        points = [case.measured.point for case in self.cases]
        shape = self._shape
        return fit_calibration(
            points, curve=shape, cap=self.cap, family="left-out", fingerprint={}, kind=kind
        )

    @cached_property
    def _shape(self) -> CurveShape:
        curves = [case.curve for case in self.cases]
        return fit_shape(curves, rises=[case.rise for case in self.cases])


@dataclass(frozen=True)
class Question:
    """What a predictor may see of a task."""

    cos_low: float | None
    zero_shot: Score
    ceiling: float | None
    pilots: tuple[Pilot, ...]
    target: float
    sibling: Sibling | None = None


Predictor = Callable[[Question], Answer]
Fitter = Callable[[Fold], Predictor]


def fit_mean(fold: Fold) -> Predictor:
    """The other tasks' mean area, and the median of the labels that those who cross needed."""
    curves = [case.curve for case in fold.cases]
    return lambda question: mean_of(curves, question.target)


def fit_line(kind: FitKind, curve: CurveKind) -> Fitter:
    """CoS-Low alone: a line for the area, then one curve per area; blind to pilots."""

    def fit(fold: Fold) -> Predictor:
        calibration = fold.calibrate(kind)
        shape = Power() if curve == "power" else calibration.curve

        def answer(question: Question) -> Answer:
            assert question.cos_low is not None
            found = calibration.predict_auc(question.cos_low)
            x = float(shape.inverse(question.target, found.auc))
            return Answer(found.auc, calibration.cap**x, auc_intervals=found.interval)

        return answer

    return fit


def fit_power_law(fold: Fold) -> Predictor:
    """y = x^p through the pilots, the paper's curve without CoS-Low."""

    def curve(x: Floats, strength: float) -> Floats:
        return np.power(x, math.exp(strength))

    def invert(target: float, strength: float, cap: int) -> float:
        return float(cap ** (target ** math.exp(-strength)))

    return _one_parameter(fold, curve, invert, (-4.0, 5.0))


def fit_inverse_power_law(fold: Fold) -> Predictor:
    """y = 1 - (1 + n)^-e through the pilots, the usual learning-curve law, at the ceiling."""
    cap = fold.cap

    def curve(x: Floats, strength: float) -> Floats:
        return 1 - np.power(1 + np.power(float(cap), x), -math.exp(strength))

    def invert(target: float, strength: float, cap: int) -> float:
        exponent = -math.log1p(-min(target, 1 - 1e-9)) / math.exp(strength)
        return math.expm1(min(exponent, 50.0))

    return _one_parameter(fold, curve, invert, (-7.0, 2.0))


def _one_parameter(
    fold: Fold,
    curve: Callable[[Floats, float], Floats],
    invert: Callable[[float, float, int], float],
    bounds: tuple[float, float],
) -> Predictor:
    cap = fold.cap
    grid = np.concatenate([[0.0], np.log([float(n) for n in fold.grid]) / math.log(cap)])

    def answer(question: Question) -> Answer:
        top = question.ceiling or 1.0
        base = question.zero_shot.score
        room = max(top - base, 1e-6)
        reached = np.maximum.accumulate([p.score for p in question.pilots])
        y = np.minimum(np.maximum((reached - base) / room, 0.0), 1.0)
        x = np.log([float(p.budget) for p in question.pilots]) / math.log(cap)

        def distance(strength: float) -> float:
            return float(np.sum((curve(x, strength) - y) ** 2))

        strength = float(minimize_scalar(distance, bounds=bounds, method="bounded").x)
        fitted = curve(grid, strength)
        fitted[0] = 0.0
        auc = float(np.sum(np.diff(grid) * (fitted[1:] + fitted[:-1])) / 2)
        labels = invert(question.target, strength, cap)
        return Answer(auc, labels, float(labels <= cap))

    return answer


def fit_ours(fold: Fold) -> Predictor:
    """`taskeff.estimate.budget.predict` on a calibration of the other tasks."""
    return asking(fold.calibration)


def asking(calibration: Calibration, *, cos_low: bool = True) -> Predictor:
    """`taskeff.estimate.budget.predict` on a calibration, with CoS-Low or blind to it."""

    def answer(question: Question) -> Answer:
        ceiling = question.ceiling
        if ceiling is not None and ceiling <= question.zero_shot.score:
            ceiling = None
        found = predict(
            calibration,
            question.cos_low if cos_low else None,
            target=question.target,
            pilots=question.pilots,
            zero_shot=question.zero_shot,
            ceiling=ceiling,
            sibling=question.sibling,
        )
        return answer_of(found)

    return answer


PREDICTORS: Mapping[str, Fitter] = {
    "mean": fit_mean,
    "published": fit_line("ols", "power"),
    "power": fit_line("fractional", "power"),
    "beta": fit_line("fractional", "beta"),
    "power_fit": fit_power_law,
    "inverse_power_law": fit_inverse_power_law,
    "ours": fit_ours,
}
NEEDS_PILOTS = frozenset({"power_fit", "inverse_power_law"})
