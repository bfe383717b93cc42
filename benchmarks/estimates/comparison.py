"""Leave-one-task-out comparison of predictors on measured curves.

Every number is about tasks the predictor was not fitted on. Labels are compared in log2 units; a
target never reached counts for the censoring and coverage columns only, and one that a pilot
already reached for none.
"""

from __future__ import annotations

import csv
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
from taskeff.curves.published import read_ceilings, read_curves, read_scores
from taskeff.errors import DataError
from taskeff.estimate.beta_curve import fit_rise
from taskeff.estimate.calibration import LEVELS
from taskeff.estimate.posterior import Pilot

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
    cos_low: str | Path,
    *,
    cap: int = 5000,
) -> list[Case]:
    """The tasks of a published-layout results folder whose CoS-Low is known.

    Args:
        results: folder of ``{task}.json``.
        ceilings: a-priori ceilings, or None.
        cos_low: CSV with columns ``task`` and ``cos_low``.
        cap: the largest budget considered, in labels.

    Raises:
        DataError: a file is missing or malformed, or fewer than three tasks are in both.
    """
    signal = _read_cos_low(Path(cos_low))
    curves, _ = read_curves(results, ceilings, cap=cap)
    scores = read_scores(results)
    known = read_ceilings(ceilings) if ceilings is not None else {}
    cases: list[Case] = []
    for name in sorted(curves.keys() & signal.keys()):
        ceiling = known.get(name)
        prior = ceiling if isinstance(ceiling, float) else None
        rise = fit_rise(curves[name], prior)
        cases.append(Case(curves[name], scores[name], signal[name], prior, rise))
    if len(cases) < 3:
        raise DataError(
            f"{cos_low}: only {len(cases)} of its tasks are in {results}; leaving one out needs "
            "three"
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
        JSON-ready records, see `_record` for the fields.
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
                rows = [_row(c, p, budgets, target) for c, p in zip(cases, fitted, strict=True)]
                records.append(_record(name, budgets, target, rows))
    return records


@dataclass(frozen=True)
class _Row:
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


def _row(case: Case, predictor: Predictor, budgets: Sequence[int], target: float) -> _Row:
    shown = tuple(Pilot(n, case.scores[n]) for n in budgets if n in case.scores)
    answer = predictor(
        Question(
            case.cos_low, case.scores.get(0, case.curve.zero_shot), case.ceiling, shown, target
        )
    )
    reached = case.curve.labels_to_reach(target)
    return _Row(
        answer=answer,
        auc=case.curve.auc,
        truth=math.inf if reached is None else math.log2(max(reached, 1.0)),
        low=math.log2(max((p.budget for p in shown), default=1)) if shown else -math.inf,
        high=math.log2(case.curve.cap),
    )


def _record(
    name: str, budgets: tuple[int, ...], target: float, rows: Sequence[_Row]
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


def _log_labels(row: _Row) -> float:
    return min(max(math.log2(max(row.answer.labels, 1.0)), row.low), row.high)


def _mean(values: Any) -> float | None:
    return float(sum(values) / len(values)) if len(values) else None


def _auroc(rows: Sequence[_Row]) -> float | None:
    """How well the chance of reaching separates tasks that reach from tasks that do not."""
    yes = [r.answer.reach for r in rows if math.isfinite(r.truth)]
    no = [r.answer.reach for r in rows if math.isinf(r.truth)]
    if not yes or not no or None in yes or None in no:
        return None
    return float(roc_auc_score([True] * len(yes) + [False] * len(no), [*yes, *no]))


def _accuracy(rows: Sequence[_Row]) -> float | None:
    said = [(r.answer.reach, math.isfinite(r.truth)) for r in rows if r.answer.reach is not None]
    return _mean([(reach >= 0.5) == truth for reach, truth in said])


def _label_interval(row: _Row) -> tuple[dict[float, Ends] | None, float, float]:
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


def _read_cos_low(path: Path) -> dict[str, float]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    values: dict[str, float] = {}
    for number, row in enumerate(rows, start=2):
        try:
            values[row["task"]] = float(row["cos_low"])
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{path}, line {number}: expected columns task and cos_low") from None
    return values
