"""The tasks of a calibration: what was measured of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from taskeff.curves.curve import Floats
from taskeff.errors import EstimateError
from taskeff.estimate.beta_curve import Rise


@dataclass(frozen=True)
class TaskPoint:
    """One calibration task.

    Attributes:
        name: the task.
        auc: measured data efficiency, in [0, 1].
        cos_low: CoS-Low, in [-1, 1]; None where not measured: the task's curve counts, for the line
            it does not.
        status: `TaskCurve.status`; a ``short`` task is listed but not fitted.
        controls: other quantities measured on the task, by name (mean confidence, say).
        rise: `taskeff.estimate.beta_curve.fit_rise` of the task's curve; None when it never
            rises, or is not kept. Eight tasks with one make pilots and curve intervals possible.
    """

    name: str
    auc: float
    cos_low: float | None = None
    status: str = "measured"
    controls: Mapping[str, float] = field(default_factory=dict[str, float])
    rise: Rise | None = None

    @property
    def as_sibling(self) -> dict[str, float]:
        """What its curve says of the same task on another model: area and share at the cap."""
        rise = self.rise
        share = 0.0 if rise is None else rise.gain / max(rise.gain, rise.headroom or 0.0)
        return {"sibling_area": self.auc, "sibling_share": share}


def point_from_dict(task: Mapping[str, Any]) -> TaskPoint:
    """The task of a `calibration.json`, by its fields there."""
    kept = {key: value for key, value in task.items() if key not in ("loo_auc", "rise")}
    return TaskPoint(**kept, rise=None if task["rise"] is None else Rise(**task["rise"]))


def columns(tasks: Sequence[TaskPoint]) -> tuple[Floats, Floats]:
    """CoS-Low, NaN where not measured, and area of the tasks: float64 [tasks] each."""
    return (
        np.array([task.cos_low for task in tasks], dtype=np.float64),
        np.array([task.auc for task in tasks], dtype=np.float64),
    )


def check_points(points: Sequence[TaskPoint]) -> None:
    """Refuse a name twice and values out of range, naming the task; raises EstimateError."""
    seen: set[str] = set()
    for point in points:
        if point.name in seen:
            raise EstimateError(f"task {point.name!r} is given twice; give each task once")
        seen.add(point.name)
        if not 0.0 <= point.auc <= 1.0:
            raise EstimateError(f"task {point.name!r}: the AUC {point.auc} is not in [0, 1]")
        if point.cos_low is not None and not -1.0 <= point.cos_low <= 1.0:
            raise EstimateError(
                f"task {point.name!r}: CoS-Low {point.cos_low} is not in [-1, 1]; it is a cosine"
            )
        for name, value in point.controls.items():
            if not math.isfinite(value):
                raise EstimateError(f"task {point.name!r}: control {name!r} is {value}")
