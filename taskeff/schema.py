"""Files of ours, read back: plain JSON that its own model accepts, or one line with file and field.

Whoever writes an artefact owns its model; whoever reads it gets the value unchanged.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError

from taskeff.errors import DataError, TaskeffError

DEEPEST = 100
"""Lists and objects within each other, of JSON and YAML."""
MOST = 20
"""Faults of one file that are told."""
Value = TypeVar("Value")


class Artefact(BaseModel):
    """Fields that a file must hold, as JSON writes them; further ones may stand beside them."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)


# Values are used as they stand in the file, so nothing may be accepted that looks like them only.
Number = Annotated[float, Strict()]
Positive = Annotated[float, Strict(), Field(gt=0)]
Share = Annotated[float, Strict(), Field(ge=0, le=1 + 1e-9)]
Cosine = Annotated[float, Strict(), Field(ge=-1 - 1e-6, le=1 + 1e-6)]
Whole = Annotated[int, Strict()]
Count = Annotated[int, Strict(), Field(ge=0, le=10**12)]
Text = Annotated[str, Strict()]
Truth = Annotated[bool, Strict()]
Object = dict[str, Any]


def decoded(data: bytes | str, *, finite: bool = True) -> Any:
    """The JSON value of a file.

    Args:
        finite: whether a number that is not finite is refused here; else its reader says where.

    Raises:
        ValueError: it is not JSON, a number is not `finite`, or it is nested too deeply.
    """
    bounds: dict[str, Any] = {"parse_constant": _refused, "parse_float": _finite} if finite else {}
    try:
        value = json.loads(data, **bounds)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    # Both marks open a level: few of them are no depth, and nothing is walked through.
    marks = (b"[", b"{") if isinstance(data, bytes) else ("[", "{")
    if sum(data.count(mark) for mark in marks) > DEEPEST and too_deep(value):  # type: ignore[arg-type]
        raise ValueError("nested too deeply")
    return value


def too_deep(value: Any, most: int = DEEPEST) -> bool:
    """Whether lists and objects are nested in each other more than `most` times."""
    level: list[Any] = [value]
    for _ in range(most + 1):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return False
    return True


def _children(value: Any) -> list[Any]:
    if not isinstance(value, list | dict):
        return []
    items: Any = value.values() if isinstance(value, dict) else value
    return [item for item in items if isinstance(item, list | dict)]


def _refused(constant: str) -> float:
    raise ValueError(f"{constant} is no number")


def _finite(digits: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else _refused(f"{digits:.20}")


def checked(
    value: Value, schema: type[BaseModel], where: str, error: type[TaskeffError] = DataError
) -> Value:
    """`value`, which `schema` accepts.

    Raises:
        error: it does not; `where` names the file.
    """
    try:
        schema.model_validate(value)
    except ValidationError as wrong:
        raise error(f"{where}: {reasons(wrong)}") from None
    return value


def read_object(path: str | Path) -> dict[str, Any]:
    """The JSON object in a file; raises ValueError naming it."""
    try:
        content = decoded(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not a readable JSON file: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected one JSON object")
    return cast("dict[str, Any]", content)


def reasons(error: ValidationError) -> str:
    """What pydantic found, each thing with its field."""
    found: list[str] = []
    for problem in error.errors():
        field = ".".join(map(str, problem["loc"]))
        said = cast("str", problem["msg"]).removeprefix("Value error, ")
        given: Any = problem["input"]
        if problem["type"] == "string_type" and given is None:
            said = "leave it out, or give it a text"
        elif problem["type"] == "string_type" and not isinstance(given, list | dict):
            said = f"{given!s:.40} is no text to YAML; write it in quotes"
        found.append(f"{field}: {said}" if field else said)
    more = f"; and {len(found) - MOST} more" if len(found) > MOST else ""
    return "; ".join(found[:MOST]) + more
