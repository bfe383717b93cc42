"""CoS-Low -> data efficiency: the regression of one model family and what it is worth.

Fitted over tasks whose curves were measured (arXiv 2512.24991, section 4); every error is
leave-one-task-out and stands beside that of predicting the mean.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from taskeff.curves.curve import Floats
from taskeff.errors import EstimateError
from taskeff.estimate.beta_curve import Rise
from taskeff.estimate.prior import MIN_RISES, CurvePrior, fit_prior
from taskeff.estimate.regression import (
    FitKind,
    Line,
    Worth,
    dfbetas,
    fit_line,
    jackknife_plus,
    leave_one_out,
    left_out_means,
    left_out_predictions,
    measure_worth,
    scale,
)
from taskeff.estimate.shapes import Beta, CurveShape, shape_from_dict

if TYPE_CHECKING:
    from taskeff.storage import Store

SCHEMA = 1
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
        rise: `taskeff.estimate.beta_curve.fit_rise` of the task's curve; None when it never
            rises, or is not kept. Eight tasks with one make pilots and curve intervals possible.
    """

    name: str
    auc: float
    cos_low: float
    status: str = "measured"
    controls: Mapping[str, float] = field(default_factory=dict[str, float])
    rise: Rise | None = None


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
        left_out: task -> its AUC predicted from the other tasks; None if published.
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
    left_out: Mapping[str, float] | None = None
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
        left_out = self.left_out or {}
        return {
            "schema": SCHEMA,
            "family": self.family,
            "fingerprint": dict(self.fingerprint),
            "cap": self.cap,
            "curve": {"kind": self.curve.kind, "shape": self.curve.to_dict()},
            "fit": dataclasses.asdict(self.line),
            "loo": {
                "mae": self.mae,
                "mean_baseline": self.mean_baseline,
                "residuals": [t.auc - left_out[t.name] for t in self.fitted] if left_out else None,
                "r": self.cos_low and self.cos_low.r,
                "r_interval": self.cos_low and self.cos_low.to_dict()["r_interval"],
            },
            "controls": {name: worth.to_dict() for name, worth in self.controls.items()},
            "seed": self.seed,
            "source": self.source,
            "caveat": self.caveat,
            "warnings": list(self.warnings),
            "tasks": [
                {**dataclasses.asdict(task), "loo_auc": left_out.get(task.name)}
                for task in self.tasks
            ],
        }

    @staticmethod
    def from_dict(value: Mapping[str, Any], where: str = "calibration") -> Calibration:
        """The calibration whose `to_dict` this is, fitted again to its tasks.

        Args:
            where: its file, for messages.

        Raises:
            EstimateError: another schema, or a field missing.
        """
        try:
            if value["schema"] != SCHEMA:
                raise EstimateError(
                    f"{where}: schema {value['schema']!r}, expected {SCHEMA}; calibrate again"
                )
            line = Line(**value["fit"])
            common: dict[str, Any] = {
                "family": value["family"],
                "fingerprint": value["fingerprint"],
                "cap": value["cap"],
                "curve": shape_from_dict(value["curve"]["kind"], value["curve"]["shape"]),
                "seed": value["seed"],
            }
            if value["source"] is not None:
                mae = value["loo"]["mae"]
                return Calibration(**common, line=line, mae=mae, source=value["source"])
            points = [_point(task) for task in value["tasks"]]
            fitted = fit_calibration(points, **common, kind=line.kind)
            return dataclasses.replace(fitted, caveat=value.get("caveat"))
        except EstimateError:
            raise
        except Exception as error:  # noqa: BLE001 - a file may hold anything at all
            raise EstimateError(
                f"{where}: unlike a calibration ({type(error).__name__}: {error}); calibrate again"
            ) from None

    def save(self, target: Store | str | os.PathLike[str]) -> None:
        """Write `calibration.json` into a store or folder, or the file at a `*.json` path.

        Raises:
            StorageError: it cannot be written.
        """
        store, name = _locate(target)
        store.write_json(self.to_dict(), name)

    @staticmethod
    def load(source: Store | str | os.PathLike[str]) -> Calibration:
        """A calibration: a bundled family's name, a store or folder, or a `*.json` file.

        Raises:
            EstimateError: the name is no bundled family and no file, or the file is not a
                calibration.
        """
        bundled = bundled_families()
        if isinstance(source, str) and source in bundled:
            return Calibration.from_dict(json.loads(bundled[source].read_text("utf-8")), source)
        if isinstance(source, str) and "/" not in source and not os.path.exists(source):
            raise EstimateError(
                f"{source!r} is neither a bundled family ({', '.join(bundled)}) nor a calibration "
                "file; name one of these"
            )
        store, name = _locate(source)
        return Calibration.from_dict(store.read_json(name), name)


def bundled_families() -> dict[str, Path]:
    """The calibrations that the package carries, the paper's coefficients and our own, by name."""
    folder = Path(__file__).parent / "families"
    return {file.stem: file for file in sorted(folder.glob("*.json"))}


def _point(task: Mapping[str, Any]) -> TaskPoint:
    kept = {key: value for key, value in task.items() if key not in ("loo_auc", "rise")}
    return TaskPoint(**kept, rise=None if task["rise"] is None else Rise(**task["rise"]))


def _locate(where: Store | str | os.PathLike[str]) -> tuple[Store, str]:
    # Storage takes pyarrow along, which a bundled family does not need.
    from taskeff.storage import Store

    if isinstance(where, Store):
        return where, "calibration.json"
    text = os.fspath(where)
    if not text.endswith(".json"):
        return Store(text), "calibration.json"
    folder, _, name = text.rpartition("/")
    return Store(folder or "."), name


def fit_calibration(
    points: Sequence[TaskPoint],
    *,
    curve: CurveShape,
    cap: int,
    family: str,
    fingerprint: Mapping[str, object],
    kind: FitKind = "fractional",
    seed: int = 0,
) -> Calibration:
    """Fit AUC on CoS-Low over the measured tasks of one family.

    Args:
        points: the tasks, in any order; those of status ``short`` are not fitted.
        curve: the family of curves, from `taskeff.estimate.shapes.fit_shape`.
        cap: the largest budget of the curves, in labels.
        family: name of the family.
        fingerprint: what CoS-Low was measured with.
        kind: ``fractional`` and ``logit`` stay in (0, 1): logistic regression of the AUC itself,
            or least squares of its logit; ``ols`` is the paper's straight line (section 4).
        seed: seed of the bootstrap intervals.

    Raises:
        EstimateError: fewer than two usable tasks, a name twice, or a value out of range.
    """
    _check(points)
    tasks = tuple(sorted(points, key=lambda task: task.name))
    fitted = tuple(task for task in tasks if task.status != "short")
    if len(fitted) < 2:
        raise EstimateError(
            f"cannot fit family {family!r}: {len(fitted)} usable task(s); calibrate at least two"
        )
    x, auc = _columns(fitted)
    names = set[str](fitted[0].controls).intersection(*(task.controls for task in fitted))
    controls = {
        name: measure_worth(kind, np.array([task.controls[name] for task in fitted]), auc, seed)
        for name in sorted(names)
    }
    left_out = left_out_predictions(kind, x, auc)
    worth = measure_worth(kind, x, auc, seed)
    return Calibration(
        family=family,
        fingerprint=fingerprint,
        cap=cap,
        curve=curve,
        line=fit_line(kind, x, auc),
        tasks=tasks,
        left_out=dict(zip((task.name for task in fitted), left_out.tolist(), strict=True)),
        mae=worth.mae,
        mean_baseline=float(np.mean(np.abs(auc - left_out_means(auc)))),
        cos_low=worth,
        controls=controls,
        seed=seed,
    )


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
