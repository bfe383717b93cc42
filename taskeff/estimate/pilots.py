"""Pilot scores as a user writes them: on the command line, in a CSV or in a JSON file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from taskeff.errors import DataError, EstimateError
from taskeff.estimate.posterior import Pilot
from taskeff.tasks.readers import format_of, read_file


def parse_pilot(text: str) -> Pilot:
    """The pilot that ``BUDGET:SCORE`` or ``BUDGET:SCORE:N_TEST`` writes.

    Raises:
        EstimateError: it is written otherwise, or a value is out of range.
    """
    parts = text.split(":")
    if len(parts) not in (2, 3):
        raise EstimateError(f"pilot {text!r}: write BUDGET:SCORE or BUDGET:SCORE:N_TEST")
    return _pilot(dict(zip(("budget", "score", "n_test"), parts, strict=False)), f"pilot {text!r}")


def read_pilots(path: str | Path) -> list[Pilot]:
    """The pilots of a file, in its order.

    Args:
        path: a table with columns ``budget``, ``score`` and perhaps ``n_test``, or a ``.json`` list
            of such objects (or an object that holds one under ``pilots``, as
            `taskeff predict --json` prints).

    Raises:
        EstimateError: naming file, row and fix.
    """
    file = str(path)
    kind = format_of(file) or "csv"
    rows: list[tuple[str, Mapping[str, Any]]] = []
    try:
        for row in read_file(file, kind, {"field": "pilots"} if kind == "json" else None):
            if row.values is None:
                raise EstimateError(f"{row.where}: {row.error}")
            if kind == "csv" and not {"budget", "score"} <= set(row.values):
                raise EstimateError(f"{file}, line 1: expected the columns budget, score[, n_test]")
            rows.append((row.where, row.values))
    except DataError as error:
        raise EstimateError(str(error)) from None
    if not rows:
        raise EstimateError(f"{file}: holds no pilot; give at least one row")
    pilots = [_pilot(row, where) for where, row in rows]
    first: dict[int, str] = {}
    for (where, _), pilot in zip(rows, pilots, strict=True):
        if pilot.budget in first:
            raise EstimateError(
                f"{where}: budget {pilot.budget} is also at {first[pilot.budget]}; average the two"
            )
        first[pilot.budget] = where
    return pilots


def _pilot(row: Mapping[str, Any], where: str) -> Pilot:
    budget = _number(row, "budget", where)
    score = _number(row, "score", where)
    tests = None if row.get("n_test") in (None, "") else _number(row, "n_test", where)
    if budget < 1 or budget != int(budget):
        raise EstimateError(f"{where}: budget {row['budget']} is not a whole number from 1 up")
    if not 0.0 <= score <= 1.0:
        raise EstimateError(
            f"{where}: the score {row['score']} is not in [0, 1]; give it as a share"
        )
    if tests is not None and (tests < 1 or tests != int(tests)):
        raise EstimateError(f"{where}: n_test {row['n_test']} is not a whole number from 1 up")
    return Pilot(int(budget), score, None if tests is None else int(tests))


def _number(row: Mapping[str, Any], name: str, where: str) -> float:
    value: Any = row.get(name)
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise EstimateError(f"{where}: {name} {value!r} is not a number")
    return number
