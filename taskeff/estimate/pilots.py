"""Pilot scores as a user writes them: on the command line, in a CSV or in a JSON file."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from taskeff.errors import EstimateError
from taskeff.estimate.posterior import Pilot


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
        path: a CSV with columns ``budget``, ``score`` and perhaps ``n_test``, or a ``.json`` list
            of such objects (or an object that holds one under ``pilots``, as
            `taskeff predict --json` prints).

    Raises:
        EstimateError: naming file, row and fix.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise EstimateError(f"{file}: cannot be read ({error}); check the path") from None
    rows = _json_rows(text, file) if file.suffix == ".json" else _csv_rows(text, file)
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


def _csv_rows(text: str, file: Path) -> list[tuple[str, Mapping[str, Any]]]:
    lines = csv.DictReader(text.splitlines())
    columns = set(lines.fieldnames or ())
    if not {"budget", "score"} <= columns:
        raise EstimateError(f"{file}, line 1: expected the columns budget, score[, n_test]")
    return [(f"{file}, line {lines.line_num}", row) for row in lines]


def _json_rows(text: str, file: Path) -> list[tuple[str, Mapping[str, Any]]]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise EstimateError(f"{file}: is not JSON ({error}); write it again") from None
    if isinstance(value, Mapping):
        value = cast("Mapping[str, Any]", value).get("pilots")
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise EstimateError(f'{file}: expected a list of {{"budget": n, "score": s}}')
    rows = list(enumerate(cast("Sequence[Any]", value), start=1))
    for number, row in rows:
        if not isinstance(row, Mapping):
            raise EstimateError(f'{file}, row {number}: expected {{"budget": n, "score": s}}')
    return [(f"{file}, row {number}", row) for number, row in rows]


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
