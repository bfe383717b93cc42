"""Leave-one-task-out comparison of predictors on measured curves.

Every number is about tasks the predictor was not fitted on. Labels are compared in log2 units; a
target never reached counts for the censoring and coverage columns only, and one that a pilot
already reached for none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.estimates.predictors import (
    NEEDS_PILOTS,
    PREDICTORS,
    Case,
    Fitter,
    Fold,
    Predictor,
    Question,
)
from taskeff.curves.published import read_scores
from taskeff.errors import DataError
from taskeff.estimate.folders import read_tasks
from taskeff.estimate.posterior import Pilot, Score
from taskeff.estimate.scoring import Row, record, row_of
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
    return row_of(predictor(question), case.curve, target, shown)
