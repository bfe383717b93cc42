"""Measured scores as a user writes them: on the command line, in a CSV or in a JSON file.

`PilotFile` is what `taskeff pilot` writes and `taskeff predict --pilots` reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from taskeff.errors import DataError, EstimateError
from taskeff.estimate.posterior import Pilot, Score
from taskeff.schema import decoded, reasons
from taskeff.tasks.readers import format_of, read_file


def _number(value: object) -> object:
    # A bool is an int to Python; an empty cell of a CSV says nothing.
    if isinstance(value, bool):
        raise ValueError(f"{value} is not a number")
    return None if value == "" else value


Share = Annotated[float, BeforeValidator(_number), Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, BeforeValidator(_number), Field(ge=1, le=10**12)]
Rows = Annotated[Annotated[int, Field(ge=1, le=10**12)] | None, BeforeValidator(_number)]


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, populate_by_name=True)


class ScoreRow(_Row):
    """A score in [0, 1] and the test rows behind it, None where not known."""

    score: Share
    n_test: Rows = None


class PilotRow(ScoreRow):
    """One fine-tune: on so many labels, drawn with this seed."""

    labels: Count = Field(validation_alias=AliasChoices("labels", "budget"))
    seed: Annotated[int | None, BeforeValidator(_number)] = None


class PilotFile(_Row):
    """Pilots of one task and one model.

    Attributes:
        schema_: 1; "schema" in the file.
        task: the task's name; "" where the file says none.
        fingerprint: what was fine-tuned and how.
        rows: of the task, read, used and left out, as `taskeff.tasks.account` writes them.
        zero_shot: the score before any fine-tune; None when not measured.
        ceiling: the best score to hope for, where it is known.
        pilots: a row a fine-tune, at least one; several at one number of labels have seeds that
            differ.
    """

    schema_: Literal[1] = Field(default=1, alias="schema")
    task: str = ""
    fingerprint: dict[str, Any] = Field(default_factory=dict)
    rows: dict[str, Any] = Field(default_factory=dict)
    zero_shot: ScoreRow | None = None
    ceiling: Share | None = None
    pilots: tuple[PilotRow, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _seeds_differ(self) -> PilotFile:
        seen: set[tuple[int, int | None]] = set()
        for row in self.pilots:
            if (row.labels, row.seed) in seen:
                again = "" if row.seed is None else f" with seed {row.seed}"
                raise ValueError(
                    f"pilots: {row.labels} labels{again} are there twice; give repeats a seed each"
                )
            seen.add((row.labels, row.seed))
        return self

    @property
    def base(self) -> Score | None:
        """The zero-shot score."""
        return self.zero_shot and Score(self.zero_shot.score, self.zero_shot.n_test)

    def merged(self) -> list[Pilot]:
        """One pilot a number of labels, in rising order: the mean of its repeats.

        Repeats are scored on the same rows, so a mean has no more test rows than one of them.
        """
        found: dict[int, list[PilotRow]] = {}
        for row in self.pilots:
            found.setdefault(row.labels, []).append(row)
        return [_mean(labels, rows) for labels, rows in sorted(found.items())]


def _mean(labels: int, rows: Sequence[PilotRow]) -> Pilot:
    tests = [row.n_test for row in rows if row.n_test is not None]
    score = sum(row.score for row in rows) / len(rows)
    return Pilot(labels, score, min(tests) if len(tests) == len(rows) else None)


def as_pilot(value: Pilot | Sequence[float] | str) -> Pilot:
    """The pilot that is written as ``(budget, score[, n_test])`` or ``BUDGET:SCORE[:N_TEST]``.

    Raises:
        EstimateError: it is written otherwise, or a value is out of range.
    """
    if isinstance(value, Pilot):
        return value
    row = _parsed(value, ("labels", "score", "n_test"), "pilot", "BUDGET:SCORE[:N_TEST]", PilotRow)
    return Pilot(row.labels, row.score, row.n_test)


def as_score(value: Score | float | Sequence[float] | str, what: str) -> Score:
    """The score that is written as ``score``, ``(score, n_test)`` or ``SCORE[:N_TEST]``.

    Args:
        what: it is, for messages.

    Raises:
        EstimateError: it is written otherwise, or a value is out of range.
    """
    if isinstance(value, Score):
        return value
    parts = (value,) if isinstance(value, float | int) else value
    row = _parsed(parts, ("score", "n_test"), what, "SCORE[:N_TEST]", ScoreRow)
    return Score(row.score, row.n_test)


def _parsed(value: Any, names: Sequence[str], what: str, form: str, row: Any) -> Any:
    said = f"{what} {value!r}"
    parts: Any = value.split(":") if isinstance(value, str) else value
    if not hasattr(parts, "__len__") or not len(names) - 1 <= len(parts) <= len(names):
        raise EstimateError(f"{said}: write {form}, or the same as a tuple in Python")
    return _valid(row, dict(zip(names, parts, strict=False)), said)


def _valid(schema: Any, values: Any, where: str) -> Any:
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise EstimateError(f"{where}: {reasons(error)}") from None


def read_pilots(path: str | Path) -> PilotFile:
    """The pilots of a file.

    Args:
        path: what `taskeff pilot` wrote (a `PilotFile`); or by hand a table with columns
            ``labels`` (or ``budget``), ``score`` and perhaps ``n_test`` and ``seed``, or a
            ``.json`` list of such objects.

    Raises:
        EstimateError: naming file, row and fix.
    """
    file = str(path)
    kind = format_of(file) or "csv"
    if kind == "json" and (whole := _object(path)) is not None and "schema" in whole:
        return _valid(PilotFile, whole, file)
    rows: list[PilotRow] = []
    try:
        for row in read_file(file, kind, {"field": "pilots"} if kind == "json" else None):
            if row.values is None:
                raise EstimateError(f"{row.where}: {row.error}")
            if kind == "csv" and "score" not in row.values:
                raise EstimateError(f"{file}, line 1: expected the columns labels, score[, n_test]")
            rows.append(_valid(PilotRow, row.values, row.where))
    except DataError as error:
        raise EstimateError(str(error)) from None
    if not rows:
        raise EstimateError(f"{file}: holds no pilot; give at least one row")
    return _valid(PilotFile, {"pilots": rows}, file)


def _object(path: str | Path) -> Mapping[str, Any] | None:
    """The file as one JSON object; None where it is none, or unreadable, which a reader says."""
    try:
        value = decoded(Path(path).read_bytes())
    except (OSError, ValueError):
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None
