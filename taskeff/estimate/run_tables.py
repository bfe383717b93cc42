"""A run's tables, `curves.parquet` and `coslow.parquet` -> its curves and its calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from taskeff.curves.curve import TaskCurve, data_efficiency
from taskeff.errors import EstimateError
from taskeff.estimate.beta_curve import fit_rise
from taskeff.estimate.calibration import Calibration, TaskPoint, fit_calibration
from taskeff.estimate.posterior import Score
from taskeff.estimate.regression import FitKind
from taskeff.estimate.shapes import fit_shape, rises_at_all

CONTROLS = (
    "random_cosine",
    "mean_cosine",
    "mean_confidence",
    "gradient_norm",
    "zero_shot",
    "label_zero_shot",
)
Ceiling = float | Mapping[str, float | None] | None
"""The score that counts as 1: one for all tasks, or each task's own; None is its best score."""


@dataclass(frozen=True)
class FitSettings:
    """How a run's points are fitted: see `taskeff.config.CurveConfig`."""

    cap: int
    ceiling: Ceiling
    shape: str
    fit: FitKind
    family: str
    fingerprint: Mapping[str, object]


def task_curves(
    rows: Sequence[Mapping[str, Any]], *, cap: int, ceiling: Ceiling
) -> dict[str, TaskCurve]:
    """One curve per task from the rows of `curves.parquet`, scores averaged over seeds.

    Every point keeps the seeds' spread. A row whose ``status`` is ``imputed`` (a cell that an
    adaptive grid skipped) makes its point one; rows without a status are measured.

    A task that scores better than its ceiling has its best score as ceiling (arXiv 2512.24991).
    One that no labels improve, with no room below its ceiling, is scaled to 1: its area is 0.
    """
    scores: dict[str, dict[int, list[float]]] = {}
    imputed: dict[str, set[int]] = {}
    for row in rows:
        scores.setdefault(row["task"], {}).setdefault(row["budget"], []).append(row["score"])
        if row.get("status") == "imputed":
            imputed.setdefault(row["task"], set()).add(row["budget"])
    curves: dict[str, TaskCurve] = {}
    for task, found in scores.items():
        means = {budget: float(np.mean(values)) for budget, values in found.items()}
        known = ceiling_of(ceiling, task)
        best = max(score for budget, score in means.items() if budget <= cap)
        top = best if known is None else max(known, best)
        if top <= means.get(0, 0.0):
            top = 1.0
        curves[task] = data_efficiency(
            found, cap=cap, ceiling=top, name=task, imputed=imputed.get(task, ())
        )
    return curves


def first_runs(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[int, Score]]:
    """Task -> budget -> the score of its run of the lowest seed, with its test rows.

    Args:
        rows: of `curves.parquet`; those of status ``imputed`` are no runs.
    """
    found: dict[str, dict[int, Score]] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        if row.get("status") != "imputed":
            score = Score(row["score"], row["n_test"])
            found.setdefault(row["task"], {}).setdefault(row["budget"], score)
    return found


def ceiling_of(ceiling: Ceiling, task: str) -> float | None:
    """The ceiling of one task that was known before anything was measured; None if none was."""
    return ceiling.get(task) if isinstance(ceiling, Mapping) else ceiling


def label_zero_shots(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Each task's zero-shot score with the answer's format given, from rows of `curves.parquet`.

    That is the score among the task's own labels; where a task lists none, the strict score.
    """
    return {
        row["task"]: row["score"] if row["label_score"] is None else row["label_score"]
        for row in rows
        if row["budget"] == 0
    }


def fit_run(
    curves: Mapping[str, TaskCurve],
    signals: Mapping[str, Mapping[str, Any]],
    settings: FitSettings,
    label_zero_shot: Mapping[str, float] | None = None,
) -> Calibration:
    """The family's calibration over the tasks in `curves`.

    Args:
        curves: the calibration tasks' curves.
        signals: task -> its row of `coslow.parquet`.
        label_zero_shot: task -> its zero-shot score among its labels, one more control.

    Raises:
        EstimateError: fewer than two tasks can be fitted.
    """
    if len(curves) < 2:
        raise EstimateError(
            f"cannot fit family {settings.family!r}: a line needs at least two calibration "
            f"tasks, there are {len(curves)}; name more under tasks.calibration"
        )
    rises = {
        name: fit_rise(curve, ceiling_of(settings.ceiling, name)) for name, curve in curves.items()
    }
    points = [
        TaskPoint(
            name=name,
            auc=curve.auc,
            cos_low=signals[name]["cos_low"],
            status=curve.status,
            controls=_controls(signals[name], curve, (label_zero_shot or {}).get(name)),
            rise=rises[name],
        )
        for name, curve in curves.items()
    ]
    # Flat curves have no shape to fit; what was measured is still worth its report.
    shape = settings.shape if any(map(rises_at_all, curves.values())) else "power"
    return fit_calibration(
        points,
        curve=fit_shape(list(curves.values()), shape, list(rises.values())),
        cap=settings.cap,
        family=settings.family,
        fingerprint=settings.fingerprint,
        kind=settings.fit,
    )


def _controls(
    signal: Mapping[str, Any], curve: TaskCurve, label_zero_shot: float | None
) -> dict[str, float]:
    found = {**signal, "zero_shot": curve.zero_shot, "label_zero_shot": label_zero_shot}
    return {name: float(value) for name in CONTROLS if (value := found.get(name)) is not None}
