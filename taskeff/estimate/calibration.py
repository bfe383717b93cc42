"""CoS-Low -> data efficiency: the regression of one model family and what it is worth.

Fitted over tasks whose curves were measured (arXiv 2512.24991, section 4); every error is
leave-one-task-out and stands beside that of predicting the mean.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from taskeff.errors import EstimateError
from taskeff.estimate.numeric import Floats
from taskeff.estimate.prior import MIN_RISES, CurvePrior, fit_prior
from taskeff.estimate.regression import (
    FitKind,
    Line,
    bootstrap_interval,
    dfbetas,
    fit_line,
    jackknife_plus,
    leave_one_out,
    left_out_means,
    left_out_predictions,
    pearson,
    scale,
)
from taskeff.estimate.rise import Rise
from taskeff.estimate.shapes import Beta, CurveShape

if TYPE_CHECKING:
    from taskeff.storage import Store

LEVELS = (0.5, 0.8, 0.9)
"""Coverage levels of every interval."""


@dataclass(frozen=True)
class TaskPoint:
    """One calibration task.

    Attributes:
        name: the task.
        auc: measured data efficiency, in [0, 1].
        cos_low: CoS-Low, in [-1, 1].
        status: `TaskCurve.status`; a ``short`` task is listed but not fitted.
        controls: other quantities measured on the task, by name (mean confidence, say).
        rise: `taskeff.estimate.rise.fit_rise` of the task's curve; None when it never rises, or
            is not kept. Eight tasks with one make pilots and curve intervals possible.
    """

    name: str
    auc: float
    cos_low: float
    status: str = "measured"
    controls: Mapping[str, float] = field(default_factory=dict[str, float])
    rise: Rise | None = None


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
        interval = None if self.r_interval is None else list(self.r_interval)
        return {"r": self.r, "r_interval": interval, "mae": self.mae}


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
class Calibration:
    """The fitted line of one family, its curve shape, and the tasks it rests on.

    Attributes:
        family: name of the family.
        fingerprint: what CoS-Low was measured with, see `taskeff.estimate.fingerprint`.
        cap: the largest budget of the curves, in labels.
        curve: the family of curves.
        line: AUC as a function of CoS-Low.
        tasks: the calibration tasks; empty for published coefficients.
        left_out: float64 [fitted tasks], each AUC predicted from the other tasks; None if
            published.
        mae: mean absolute leave-one-task-out error in AUC; as stated, if published.
        mean_baseline: the same error of predicting the mean of the other tasks.
        cos_low: the worth of CoS-Low; None if published.
        controls: the worth of every other measured quantity.
        seed: seed of the bootstrap.
        source: where published coefficients are from, else None.
        caveat: what the evidence behind a family that is shipped with this package is worth.
    """

    family: str
    fingerprint: Mapping[str, object]
    cap: int
    curve: CurveShape
    line: Line
    tasks: tuple[TaskPoint, ...] = ()
    left_out: Floats | None = None
    mae: float | None = None
    mean_baseline: float | None = None
    cos_low: Worth | None = None
    controls: Mapping[str, Worth] = field(default_factory=dict[str, Worth])
    seed: int = 0
    source: str | None = None
    caveat: str | None = None

    @cached_property
    def fitted(self) -> tuple[TaskPoint, ...]:
        """The tasks the line is fitted to: all but the short ones."""
        return tuple(task for task in self.tasks if task.status != "short")

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What to know before trusting this calibration."""
        if self.source is not None:
            return ()
        found: list[str] = [] if self.caveat is None else [self.caveat]
        n = len(self.fitted)
        if n < 10:
            found.append(f"calibrated on {n} tasks only; below 10 the fit is a guess")
        x, auc = _columns(self.fitted)
        moved = dfbetas(x, scale(self.line.kind, auc))
        if self.curve.kind == "beta" and self.prior is None:
            found.append(
                "fewer than eight curves rise: labels needed assume that the ceiling is reached "
                "at the cap, so take them as the fewest it could be"
            )
        heavy = [t.name for t, d in zip(self.fitted, moved, strict=True) if abs(d) > 1]
        if heavy:
            found.append(
                f"the slope rests on {', '.join(heavy)}: without it, it moves by more than a "
                "standard error"
            )
        if (
            self.mae is not None
            and self.mean_baseline is not None
            and (self.mae >= self.mean_baseline)
        ):
            found.append(
                f"CoS-Low predicts no better than the mean here (error {self.mae:.3f} against "
                f"{self.mean_baseline:.3f})"
            )
        return tuple(found)

    @cached_property
    def prior(self) -> CurvePrior | None:
        """What the tasks say of a new task's whole curve; None below eight with a rise."""
        risen = [(t.rise, t.cos_low) for t in self.fitted if t.rise is not None]
        if len(risen) < MIN_RISES or not isinstance(self.curve, Beta):
            return None
        return fit_prior([rise for rise, _ in risen], [cos for _, cos in risen], self.curve)

    @cached_property
    def _left_out_lines(self) -> list[Line]:
        return leave_one_out(self.line.kind, *_columns(self.fitted))

    def predict_auc(self, cos_low: float) -> AucEstimate:
        """The data efficiency of a task with this CoS-Low.

        Raises:
            EstimateError: CoS-Low is not in [-1, 1], or the line leaves (0, 1) there.
        """
        if not -1.0 <= cos_low <= 1.0:
            raise EstimateError(f"CoS-Low {cos_low} is not in [-1, 1]; it is a cosine")
        auc = self.line.auc(cos_low)
        if not 0.0 < auc < 1.0:
            raise EstimateError(
                f"CoS-Low {cos_low:g} is outside what family {self.family!r} can answer: its line "
                f"predicts an area of {auc:.3f}, which is not between 0 and 1"
            )
        warnings = list(self.warnings)
        if not self.fitted:
            reason = "published coefficients come without residuals"
            return AucEstimate(auc, None, reason, tuple(warnings))
        x, measured = _columns(self.fitted)
        if not float(x.min()) <= cos_low <= float(x.max()):
            warnings.append(
                f"CoS-Low {cos_low:g} is outside the calibrated range "
                f"{float(x.min()):.3g} to {float(x.max()):.3g}"
            )
        interval = {
            level: jackknife_plus(self._left_out_lines, x, measured, cos_low, level)
            for level in LEVELS
        }
        return AucEstimate(auc, interval, None, tuple(warnings))

    def to_dict(self) -> dict[str, Any]:
        """The content of `calibration.json`: no time, path or host, so reruns compare equal."""
        from taskeff.estimate.artefact import calibration_to_dict

        return calibration_to_dict(self)

    def save(self, target: Store | str | os.PathLike[str]) -> None:
        """Write `calibration.json` into a store or folder, or the file at a `*.json` path.

        Raises:
            StorageError: it cannot be written.
        """
        from taskeff.estimate.artefact import save_calibration

        save_calibration(self, target)

    @staticmethod
    def load(source: Store | str | os.PathLike[str]) -> Calibration:
        """A calibration: a published family's name, a store or folder, or a `*.json` file.

        Raises:
            EstimateError: the name is no published family and no file, or the file is not a
                calibration.
        """
        from taskeff.estimate.artefact import load_calibration

        return load_calibration(source)


def fit_calibration(
    points: Sequence[TaskPoint],
    *,
    curve: CurveShape,
    cap: int,
    family: str,
    fingerprint: Mapping[str, object],
    kind: FitKind = "fractional",
    include_short: bool = False,
    seed: int = 0,
) -> Calibration:
    """Fit AUC on CoS-Low over the measured tasks of one family.

    Args:
        points: the tasks, in any order; those of status ``short`` are not fitted unless asked.
        curve: the family of curves, from `taskeff.estimate.shapes.fit_shape`.
        cap: the largest budget of the curves, in labels.
        family: name of the family.
        fingerprint: what CoS-Low was measured with.
        kind: ``fractional`` and ``logit`` stay in (0, 1): logistic regression of the AUC itself,
            or least squares of its logit; ``ols`` is the paper's straight line (section 4).
        include_short: fit short tasks too.
        seed: seed of the bootstrap intervals.

    Raises:
        EstimateError: fewer than two usable tasks, a name twice, or a value out of range.
    """
    _check(points)
    if include_short:
        points = [
            TaskPoint(p.name, p.auc, p.cos_low, "measured", p.controls, p.rise)
            if p.status == "short"
            else p
            for p in points
        ]
    tasks = tuple(sorted(points, key=lambda task: task.name))
    fitted = tuple(task for task in tasks if task.status != "short")
    if len(fitted) < 2:
        raise EstimateError(
            f"cannot fit family {family!r}: {len(fitted)} usable task(s); calibrate at least two"
        )
    x, auc = _columns(fitted)
    names = set[str](fitted[0].controls).intersection(*(task.controls for task in fitted))
    controls = {
        name: _worth(kind, np.array([task.controls[name] for task in fitted]), auc, seed)
        for name in sorted(names)
    }
    left_out = left_out_predictions(kind, x, auc)
    return Calibration(
        family=family,
        fingerprint=fingerprint,
        cap=cap,
        curve=curve,
        line=fit_line(kind, x, auc),
        tasks=tasks,
        left_out=left_out,
        mae=float(np.mean(np.abs(auc - left_out))),
        mean_baseline=float(np.mean(np.abs(auc - left_out_means(auc)))),
        cos_low=_worth(kind, x, auc, seed),
        controls=controls,
        seed=seed,
    )


def _worth(kind: FitKind, x: Floats, auc: Floats, seed: int) -> Worth:
    r = pearson(x, auc)
    error = float(np.mean(np.abs(auc - left_out_predictions(kind, x, auc))))
    return Worth(None if math.isnan(r) else r, bootstrap_interval(x, auc, seed), error)


def _columns(tasks: Sequence[TaskPoint]) -> tuple[Floats, Floats]:
    return (
        np.array([task.cos_low for task in tasks], dtype=np.float64),
        np.array([task.auc for task in tasks], dtype=np.float64),
    )


def _check(points: Sequence[TaskPoint]) -> None:
    seen: set[str] = set()
    for point in points:
        if point.name in seen:
            raise EstimateError(f"task {point.name!r} is given twice; give each task once")
        seen.add(point.name)
        if not 0.0 <= point.auc <= 1.0:
            raise EstimateError(f"task {point.name!r}: the AUC {point.auc} is not in [0, 1]")
        if not -1.0 <= point.cos_low <= 1.0:
            raise EstimateError(
                f"task {point.name!r}: CoS-Low {point.cos_low} is not in [-1, 1]; it is a cosine"
            )
        for name, value in point.controls.items():
            if not math.isfinite(value):
                raise EstimateError(f"task {point.name!r}: control {name!r} is {value}")
