"""Answers about tasks that are known, beside the truth: errors and coverage.

Every number is about tasks that the answer was not fitted on. Labels are compared in log2 units; a
target never reached counts for the censoring and coverage columns only, and one that a pilot
already reached for none.
"""

# pyright: basic
# numpy and scipy declare only a part of their types.

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from taskeff.curves.curve import TaskCurve
from taskeff.estimate.budget import Estimate
from taskeff.estimate.calibration import LEVELS
from taskeff.estimate.posterior import Pilot, labels_interval
from taskeff.estimate.regression import jackknife_plus, leave_one_out

Ends = tuple[float, float | None]


@dataclass(frozen=True)
class Answer:
    """What a predictor says of a task.

    Attributes:
        auc: data efficiency.
        labels: labels needed if the target is reached within the cap.
        reach: probability that it is; None where the predictor has no opinion.
        auc_intervals, label_intervals: coverage level -> ends; None where it has none.
    """

    auc: float
    labels: float
    reach: float | None = None
    auc_intervals: Mapping[float, Ends] | None = None
    label_intervals: Mapping[float, Ends] | None = None


def answer_of(found: Estimate) -> Answer:
    """What an estimate says; its labels are those of the curves that reach the target at all."""
    return Answer(
        found.auc,
        found.labels_if_reached or float(found.cap),
        found.reach_probability,
        found.auc_intervals,
        found.intervals,
    )


def mean_of(others: Sequence[TaskCurve], target: float) -> Answer:
    """What other tasks say of any: their mean area, the median of labels of those that cross.

    The interval of the area is jackknife+, that of labels the tasks' own quantiles.

    Args:
        others: at least two curves of one cap.
        target: share of the range.
    """
    areas = np.array([curve.auc for curve in others])
    nothing = np.zeros(len(others))
    # The line in a quantity that does not vary is the mean.
    lines = leave_one_out("ols", nothing, areas)
    found = [curve.labels_to_reach(target) for curve in others]
    labels = np.array([math.inf if n is None else n for n in found])
    crossed = labels[np.isfinite(labels)]
    return Answer(
        float(areas.mean()),
        float(np.median(crossed)) if len(crossed) else float(others[0].cap),
        len(crossed) / len(labels),
        {level: jackknife_plus(lines, nothing, areas, 0.0, level) for level in LEVELS},
        {level: labels_interval(labels, level, others[0].cap) for level in LEVELS},
    )


@dataclass(frozen=True)
class Row:
    """One task's question, answer and truth; labels as log2, infinite when not reached."""

    answer: Answer
    auc: float
    truth: float
    low: float
    high: float

    @property
    def open(self) -> bool:
        """Whether the target was still ahead of the largest pilot."""
        return self.truth > self.low


def row_of(answer: Answer, curve: TaskCurve, target: float, pilots: Sequence[Pilot] = ()) -> Row:
    """An answer about a task beside its measured curve; `pilots` are those that it was shown."""
    reached = curve.labels_to_reach(target)
    return Row(
        answer=answer,
        auc=curve.auc,
        truth=math.inf if reached is None else math.log2(max(reached, 1.0)),
        low=math.log2(max(p.budget for p in pilots)) if pilots else -math.inf,
        high=math.log2(curve.cap),
    )


def record(
    name: str, budgets: tuple[int, ...], target: float, rows: Sequence[Row]
) -> dict[str, Any]:
    """Errors and coverage of the answers of one kind, as plain JSON values.

    Args:
        name: of the kind.
        budgets: of the pilots shown.
        target: share of the range asked about.
        rows: one a task.
    """
    ahead = [row for row in rows if row.open]
    crossed = [row for row in ahead if math.isfinite(row.truth)]
    errors = np.array([_log_labels(row) - row.truth for row in crossed])
    size = np.abs(errors)
    return {
        "predictor": name,
        "pilots": list(budgets),
        "n_pilots": len(budgets),
        "target": target,
        "tasks": len(rows),
        "auc_mae": float(np.mean([abs(row.answer.auc - row.auc) for row in rows])),
        "reached_by_pilot": len(rows) - len(ahead),
        "never_reached": len(ahead) - len(crossed),
        "scored": len(crossed),
        "log2_error_mean": _mean(size),
        "log2_error_median": float(np.median(size)) if len(size) else None,
        "log2_error_signed": _mean(errors),
        "within_2x": _mean(size <= 1),
        "reach_auroc": _auroc(ahead),
        "reach_accuracy": _accuracy(ahead),
        "auc_coverage": _coverage([(row.answer.auc_intervals, row.auc, 1.0) for row in rows]),
        "label_coverage": _coverage([_label_interval(row) for row in ahead]),
    }


def _log_labels(row: Row) -> float:
    return min(max(math.log2(max(row.answer.labels, 1.0)), row.low), row.high)


def _mean(values: Any) -> float | None:
    return float(sum(values) / len(values)) if len(values) else None


def _auroc(rows: Sequence[Row]) -> float | None:
    """How well the chance of reaching separates tasks that reach from tasks that do not."""
    yes = np.array([r.answer.reach for r in rows if math.isfinite(r.truth)], dtype=np.float64)
    no = np.array([r.answer.reach for r in rows if math.isinf(r.truth)], dtype=np.float64)
    if not len(yes) or not len(no) or np.isnan([*yes, *no]).any():
        return None
    above = yes[:, None] - no[None, :]
    return float(np.mean((above > 0) + 0.5 * (above == 0)))


def _accuracy(rows: Sequence[Row]) -> float | None:
    said = [(r.answer.reach, math.isfinite(r.truth)) for r in rows if r.answer.reach is not None]
    return _mean([(reach >= 0.5) == truth for reach, truth in said])


def _label_interval(row: Row) -> tuple[dict[float, Ends] | None, float, float]:
    found = row.answer.label_intervals
    if found is None:
        return None, row.truth, row.high
    logs: dict[float, Ends] = {
        level: (math.log2(max(low, 1.0)), None if high is None else math.log2(max(high, 1.0)))
        for level, (low, high) in found.items()
    }
    return logs, row.truth, row.high


def _coverage(
    rows: Sequence[tuple[Mapping[float, Ends] | None, float, float]],
) -> dict[str, dict[str, float]] | None:
    """Per level: how many intervals hold the truth, of how many, their width and interval score.

    Ends and truths beyond the cap count as the cap for width and score (Gneiting & Raftery 2007).
    """
    found: dict[str, dict[str, float]] = {}
    for level in LEVELS:
        hits: list[bool] = []
        widths: list[float] = []
        scores: list[float] = []
        for intervals, truth, cap in rows:
            if intervals is None:
                continue
            low, end = intervals[level]
            high = math.inf if end is None else end
            hits.append(low <= truth <= high or (low >= cap and truth >= cap))
            low, high, truth = min(low, cap), min(high, cap), min(truth, cap)
            widths.append(high - low)
            missed = max(low - truth, 0.0) + max(truth - high, 0.0)
            scores.append(high - low + 2 / (1 - level) * missed)
        if not hits:
            return None
        found[f"{100 * level:.0f}"] = {
            "covered": float(np.sum(hits)),
            "of": float(len(hits)),
            "width": float(np.mean(widths)),
            "interval_score": float(np.mean(scores)),
        }
    return found
