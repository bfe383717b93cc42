"""Leave-one-task-out comparison of predictors on measured curves.

Every number is about tasks the predictor was not fitted on. Labels are compared in log2 units; a
target never reached counts for the censoring and coverage columns only, and one that a pilot
already reached for none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.estimates.predictors import (
    NEEDS_PILOTS,
    PREDICTORS,
    Answer,
    Case,
    Ends,
    Fitter,
    Fold,
    Predictor,
    Question,
)
from taskeff.curves.published import read_scores
from taskeff.errors import DataError
from taskeff.estimate.calibration import LEVELS
from taskeff.estimate.folders import read_tasks
from taskeff.estimate.posterior import Pilot, Score
from taskeff.estimate.sibling import Sibling

TARGETS = (0.8, 0.9, 0.95)
PILOTS: tuple[tuple[int, ...], ...] = (
    (),
    (50,),
    (50, 100),
    (50, 100, 200),
    (50, 100, 200, 500),
    (200,),
    (500,),
    (1000,),
)
"""Pilot budgets compared: the first few of the grid, and one larger fine-tune alone."""


def read_cases(
    results: str | Path,
    ceilings: str | Path | None,
    cos_low: str | Path | None = None,
    *,
    cap: int = 5000,
) -> list[Case]:
    """The tasks of a published-layout results folder, those with a CoS-Low where a file has any.

    Args:
        results: folder of ``{task}.json``.
        ceilings: a-priori ceilings, or None.
        cos_low: CSV with columns ``task`` and ``cos_low``; None takes every task, without.
        cap: the largest budget considered, in labels.

    Raises:
        DataError: a file is missing or malformed, or fewer than three tasks are in both.
    """
    scores = read_scores(results)
    cases = [
        Case(task.curve, scores[name], task.point.cos_low, task.ceiling, task.point.rise)
        for name, task in read_tasks(results, ceilings, cos_low, cap=cap).items()
        if cos_low is None or task.point.cos_low is not None
    ]
    if len(cases) < 3:
        raise DataError(
            f"{cos_low or results}: only {len(cases)} of its tasks are in {results}; leaving one "
            "out needs three"
        )
    return cases


def compare(
    cases: Sequence[Case],
    *,
    predictors: Iterable[str] = tuple(PREDICTORS),
    others: Mapping[str, Fitter] | None = None,
    pilots: Sequence[tuple[int, ...]] = PILOTS,
    targets: Sequence[float] = TARGETS,
) -> list[dict[str, Any]]:
    """One record per predictor, pilot budgets and target, leaving out one task at a time.

    Args:
        cases: the tasks.
        predictors: names from `benchmarks.estimates.predictors.PREDICTORS`.
        others: further predictors by name; they are asked only where there are pilots.
        pilots: pilot budgets shown; a task that lacks one of them is shown its others.
        targets: shares of the zero-shot-to-ceiling range.

    Returns:
        JSON-ready records, see `record` for the fields.
    """
    records: list[dict[str, Any]] = []
    folds = [Fold([c for c in cases if c is not case]) for case in cases]
    fitters = {**{name: PREDICTORS[name] for name in predictors}, **(others or {})}
    for name, fit in fitters.items():
        fitted = [fit(fold) for fold in folds]
        for budgets in pilots:
            if not budgets and (name in NEEDS_PILOTS or name in (others or {})):
                continue
            for target in targets:
                rows = [asked(c, p, budgets, target) for c, p in zip(cases, fitted, strict=True)]
                records.append(record(name, budgets, target, rows))
    return records


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


def asked(
    case: Case,
    predictor: Predictor,
    budgets: Sequence[int],
    target: float,
    *,
    n_test: int | None = None,
    seed: int = 0,
    sibling: Sibling | None = None,
) -> Row:
    """A predictor's answer about a task beside the truth.

    Args:
        case: the task.
        predictor: one that has not seen it.
        budgets: of the pilots that it is shown; those the task lacks are left out.
        target: share of the range.
        n_test: test rows of every score that it is shown, drawn from the measured one by `seed`;
            None shows the measured ones.
        sibling: the same task on another model.
    """
    rng = np.random.default_rng(seed)

    def measure(score: float) -> float:
        return score if n_test is None else float(rng.binomial(n_test, score)) / n_test

    shown = tuple(Pilot(n, measure(case.scores[n]), n_test) for n in budgets if n in case.scores)
    base = Score(measure(case.scores.get(0, case.curve.zero_shot)), n_test)
    question = Question(case.cos_low, base, case.ceiling, shown, target, sibling)
    answer = predictor(question)
    reached = case.curve.labels_to_reach(target)
    return Row(
        answer=answer,
        auc=case.curve.auc,
        truth=math.inf if reached is None else math.log2(max(reached, 1.0)),
        low=math.log2(max((p.budget for p in shown), default=1)) if shown else -math.inf,
        high=math.log2(case.curve.cap),
    )


def record(
    name: str, budgets: tuple[int, ...], target: float, rows: Sequence[Row]
) -> dict[str, Any]:
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
    yes = [r.answer.reach for r in rows if math.isfinite(r.truth)]
    no = [r.answer.reach for r in rows if math.isinf(r.truth)]
    if not yes or not no or None in yes or None in no:
        return None
    return float(roc_auc_score([True] * len(yes) + [False] * len(no), [*yes, *no]))


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
