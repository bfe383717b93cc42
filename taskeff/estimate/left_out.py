"""Tasks predicted by a calibration that never saw them, beside what was measured of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from taskeff.curves.curve import TaskCurve
from taskeff.errors import EstimateError
from taskeff.estimate.budget import Estimate, predict
from taskeff.estimate.calibration import Calibration, fit_calibration
from taskeff.estimate.shapes import fit_shape

TARGETS = (0.8, 0.9)
_ESTIMATED = ("auc", "labels_needed", "reachable", "auc_interval", "interval")


@dataclass(frozen=True)
class Prediction:
    """One task's estimates and its measured curve.

    Attributes:
        curve: what was measured.
        cos_low: its CoS-Low.
        ceiling: the ceiling that was known before anything was measured; None if none was.
        estimates: one a target of `TARGETS`; empty where there is a `problem`.
        problem: why there is no estimate, else None.
    """

    curve: TaskCurve
    cos_low: float
    ceiling: float | None
    estimates: tuple[Estimate, ...] = ()
    problem: str | None = None

    @property
    def top(self) -> float:
        """The score that is a share of 1 in the estimates.

        A task may have scored better than the ceiling that was known beforehand.
        """
        return self.curve.ceiling if self.ceiling is None else self.ceiling

    def measured_labels(self, target: float) -> float | None:
        """Labels at which the measured curve reaches the score that the estimates' target means."""
        reach = max(0.0, self.top - self.curve.zero_shot)
        return self.curve.labels_to_reach(
            target * (reach / (self.curve.ceiling - self.curve.zero_shot))
        )


def predict_task(
    calibration: Calibration, curve: TaskCurve, cos_low: float, ceiling: float | None
) -> Prediction:
    """The task's estimates, which see its zero-shot score and known ceiling, never what it reached.

    Args:
        calibration: one that the task is no part of, see `without`.
        curve: its measured curve.
        cos_low: its CoS-Low, measured as the calibration's.
        ceiling: the ceiling that was known beforehand, if any.
    """
    try:
        estimates = tuple(
            predict(
                calibration,
                cos_low,
                target=target,
                zero_shot=curve.zero_shot,
                ceiling=ceiling,
                fingerprint=calibration.fingerprint,
            )
            for target in TARGETS
        )
    except EstimateError as error:
        return Prediction(curve, cos_low, ceiling, problem=str(error))
    return Prediction(curve, cos_low, ceiling, estimates)


def without(calibration: Calibration, name: str, curves: Mapping[str, TaskCurve]) -> Calibration:
    """The same family's calibration had task `name` not been in it, curve shape and all.

    Args:
        curves: the measured curves of the other tasks at least. What the controls would be worth
            is not worked out.

    Raises:
        EstimateError: fewer than two tasks, or none that rises, are left.
    """
    points = [replace(task, controls={}) for task in calibration.tasks if task.name != name]
    others = [curves[point.name] for point in points]
    return fit_calibration(
        points,
        curve=fit_shape(others, calibration.curve.kind, [point.rise for point in points]),
        cap=calibration.cap,
        family=calibration.family,
        fingerprint=calibration.fingerprint,
        kind="fractional" if calibration.line is None else calibration.line.kind,
        seed=calibration.seed,
    )


def prediction_rows(predictions: Iterable[Prediction]) -> list[dict[str, Any]]:
    """Predicted beside measured, a row per task and target: the rows of `estimates.parquet`."""
    rows: list[dict[str, Any]] = []
    for found in predictions:
        nothing: list[dict[str, Any]] = [{} for _ in TARGETS]
        estimates = [estimate.to_dict() for estimate in found.estimates] or nothing
        # Every row has every column: a table's are those of its first row.
        for target, estimate in zip(TARGETS, estimates, strict=True):
            row: dict[str, Any] = {
                "task": found.curve.name,
                "target": target,
                "cos_low": found.cos_low,
                "measured_auc": found.curve.auc,
                "measured_labels": found.measured_labels(target),
                "problem": found.problem,
            }
            rows.append({**row, **{key: estimate.get(key) for key in _ESTIMATED}})
    return rows
