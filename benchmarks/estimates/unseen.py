"""Evidence beside CoS-Low: a generic prior, printed lines, siblings, small test sets.

Every answer is about a task that no curve behind it is of, on whichever model; those of the generic
family are about a model too of which it has seen nothing.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.estimates.comparison import PILOTS, asked, read_cases
from benchmarks.estimates.predictors import (
    Case,
    Fold,
    Predictor,
    Question,
    asking,
    fit_power_law,
)
from taskeff.errors import DataError
from taskeff.estimate.calibration import Calibration
from taskeff.estimate.folders import MeasuredTask, fit_parameters, fit_tasks, of_parameters
from taskeff.estimate.posterior import update
from taskeff.estimate.prior import CurvePrior
from taskeff.estimate.scoring import Answer, Row, record
from taskeff.estimate.sibling import Sibling, signals_of

Families = Mapping[str, Mapping[str, Case]]
COUNTS = PILOTS[1:5]
TARGET = 0.9


def read_families(
    named: Sequence[str],
    ceilings: str | Path | None = None,
    *,
    tasks: str | Path | None = None,
    cap: int = 5000,
) -> Families:
    """The families of results folders given as ``NAME=DIR``.

    Args:
        named: name and folder of each.
        ceilings: a-priori ceilings of all, or None.
        tasks: CSV whose column ``task`` names the tasks to take; None takes all.
        cap: the largest budget considered, in labels.

    Raises:
        DataError: an argument without a name, or a folder that cannot be read.
    """
    only = None
    if tasks is not None:
        with Path(tasks).open(newline="", encoding="utf-8") as file:
            only = {row["task"] for row in csv.DictReader(file)}
    found: dict[str, dict[str, Case]] = {}
    for text in named:
        name, equals, folder = text.partition("=")
        if not equals or not name:
            raise DataError(f"{text!r}: name a family and its folder as NAME=DIR")
        cases = read_cases(folder, ceilings, cap=cap)
        found[name] = {c.curve.name: c for c in cases if only is None or c.curve.name in only}
    return found


def measured(
    families: Families, task: str | None = None, left_out: str | None = None
) -> dict[str, dict[str, MeasuredTask]]:
    """The families but `left_out`, without the task."""
    return {
        name: {key: case.measured for key, case in cases.items() if key != task}
        for name, cases in families.items()
        if name != left_out
    }


def generic_without(families: Families, family: str, task: str, cap: int = 5000) -> Calibration:
    """The generic family had neither this model nor this task been measured."""
    others = measured(families, task, family)
    priors = fit_parameters(others, list(others))
    return of_parameters("generic", priors, cap=cap, source="left out")


def each(families: Families) -> Iterable[tuple[str, str, Case]]:
    """Every family, task and case."""
    for family, cases in families.items():
        for task, case in cases.items():
            yield family, task, case


def generic_records(
    families: Families, names: Sequence[str] = ("generic", "power_fit")
) -> list[dict[str, Any]]:
    """A record a predictor and number of pilots over all families, and one a family."""
    rows: dict[tuple[str, tuple[int, ...], str], list[Row]] = {}
    for family, task, case in each(families):
        for name in names:
            if name == "generic":
                predictor = asking(generic_without(families, family, task), cos_low=False)
            else:
                others = [c for f, t, c in each(families) if f != family and t != task]
                predictor = fit_power_law(Fold(others))
            for budgets in COUNTS:
                row = asked(case, predictor, budgets, TARGET)
                for key in ("all", family):
                    rows.setdefault((name, budgets, key), []).append(row)
    return [
        {**record(name, budgets, TARGET, found), "family": family}
        for (name, budgets, family), found in rows.items()
    ]


def coverage_of(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """What `Calibration.coverage` holds, of `generic_records`."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row in records:
        if row["predictor"] == "generic":
            found.setdefault(str(row["n_pilots"]), {})[row["family"]] = covered(row)
    return found


def covered(row: Mapping[str, Any]) -> dict[str, float]:
    """The shares of a record's 80 % intervals that held."""
    return {
        key: round(row[name]["80"]["covered"] / row[name]["80"]["of"], 3)
        for key, name in (("area", "auc_coverage"), ("labels", "label_coverage"))
    }


def published_records(families: Families, line: Calibration) -> list[dict[str, Any]]:
    """The printed line of a family with its own curves, one task left out, by number of pilots."""
    cases = {t: c for t, c in families[line.family].items() if c.cos_low is not None}
    asks: dict[str, Predictor] = {}
    for task in cases:
        priors = fit_parameters(measured(families, task), [line.family])
        known = of_parameters(
            line.family, priors, cap=line.cap, source="left out", line=line.line, mae=line.mae
        )
        asks[task] = asking(known)
    found = []
    for budgets in ((), *COUNTS):
        rows = [asked(case, asks[task], budgets, TARGET) for task, case in cases.items()]
        found.append(record("printed line", budgets, TARGET, rows))
    return found


def small_test_records(cases: Sequence[Case], repeats: int = 4) -> list[dict[str, Any]]:
    """CoS-Low and a pilot at 50 by the test rows behind it; repeated draws of these rows."""
    asks = [asking(calibration) for calibration in left_out(cases)]
    found = []
    for n_test, draws in ((50, repeats), (200, repeats), (None, 1)):
        rows = drawn_rows(cases, asks, (50,), n_test, draws)
        name = f"CoS-Low, {n_test or 'all'} rows"
        found.append({**record(name, (50,), TARGET, rows), "n_test": n_test})
    return found


def first_labels_records(families: Families, family: str, repeats: int = 4) -> list[dict[str, Any]]:
    """The first 100 labels of a task: 32 for CoS-Low, 50 to train and 50 to test on, or both.

    Of the calibration of the family's other tasks with a CoS-Low; the last row asks the generic
    family, which has seen neither this model nor this task, about 50 and 50.
    """
    cases = [case for case in families[family].values() if case.cos_low is not None]
    own = left_out(cases)
    generic = [generic_without(families, family, case.curve.name) for case in cases]
    spent = (
        ("CoS-Low", own, True, ()),
        ("50 + 50", own, False, (50,)),
        ("both", own, True, (50,)),
        ("generic", generic, False, (50,)),
    )
    found = []
    for name, calibrations, cos_low, budgets in spent:
        asks = [asking(calibration, cos_low=cos_low) for calibration in calibrations]
        rows = drawn_rows(cases, asks, budgets, 50 if budgets else None, repeats if budgets else 1)
        found.append({**record(f"100: {name}", budgets, TARGET, rows), "family": family})
    return found


def left_out(cases: Sequence[Case]) -> list[Calibration]:
    """For each case the calibration of all others."""
    return [Fold([c for c in cases if c is not case]).calibration for case in cases]


def drawn_rows(
    cases: Sequence[Case],
    asks: Sequence[Predictor],
    budgets: tuple[int, ...],
    n_test: int | None,
    draws: int,
) -> list[Row]:
    """Every case asked of its own predictor, once for each draw of so many test rows."""
    return [
        asked(case, ask, budgets, TARGET, n_test=n_test, seed=seed)
        for seed in range(draws)
        for case, ask in zip(cases, asks, strict=True)
    ]


def siblings_of(families: Families, family: str, task: str) -> list[Sibling]:
    """The task's curve on each other model that measured it."""
    found = []
    for other, cases in families.items():
        if other != family and task in cases and cases[task].curve.status != "short":
            beside = {name: signals_of(case.curve) for name, case in cases.items()}
            found.append(Sibling(other, task, cases[task].curve.cap, beside.pop(task), beside))
    return found


def sibling_records(families: Families) -> list[dict[str, Any]]:
    """One sibling: for a family of one's own, for the generic one; and one's own without."""
    rows: dict[tuple[str, tuple[int, ...]], list[Row]] = {}
    for family, task, case in each(families):
        others = measured(families, task)
        own = fit_parameters(others, [family])[0]
        known = fit_tasks(others[family], family=family, cap=case.curve.cap, fingerprint={})
        asks = {
            "own": asking(known, cos_low=False),
            "generic": asking(generic_without(families, family, task), cos_low=False),
        }
        siblings = siblings_of(families, family, task)
        for budgets in ((), (50,)):
            for sibling in siblings:
                for name, ask in asks.items():
                    row = asked(case, ask, budgets, TARGET, sibling=sibling)
                    rows.setdefault((f"{name}, sibling", budgets), []).append(row)
        if siblings:
            row = asked(case, blind(own), (), TARGET)
            rows.setdefault(("own, nothing", ()), []).append(row)
    return [{**record(name, b, TARGET, r), "brier": brier(r)} for (name, b), r in rows.items()]


def sibling_coverage(families: Families) -> dict[str, dict[str, float]]:
    """What `Calibration.coverage` holds of a sibling without a pilot."""
    rows: dict[str, list[Row]] = {}
    for family, task, case in each(families):
        ask = asking(generic_without(families, family, task), cos_low=False)
        for sibling in siblings_of(families, family, task):
            row = asked(case, ask, (), TARGET, sibling=sibling)
            for key in ("all", family):
                rows.setdefault(key, []).append(row)
    return {key: covered(record("sibling", (), TARGET, found)) for key, found in rows.items()}


def blind(prior: CurvePrior, cap: int = 5000) -> Predictor:
    """What a prior says of any task, knowing its zero-shot score and ceiling alone."""

    def answer(question: Question) -> Answer:
        base, top = question.zero_shot, question.ceiling
        known = top if top is not None and top > base.score else None
        found = update(prior, {}, cap=cap, zero_shot=base, ceiling=known)
        labels = found.labels(question.target)
        reached = labels[np.isfinite(labels)]
        middle = float(np.median(reached)) if len(reached) else float(cap)
        return Answer(float(np.median(found.auc)), middle, len(reached) / len(labels))

    return answer


def brier(rows: Sequence[Row]) -> float:
    """Mean squared error of the chance that the target is reached."""
    ahead = [row for row in rows if row.open and row.answer.reach is not None]
    return float(np.mean([(r.answer.reach - math.isfinite(r.truth)) ** 2 for r in ahead]))
