"""Errors a user can act on; the command line prints their one line and exits with code 2."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, cast

_PASSWORD = re.compile(r"(?<=://)[^/?#\s\"'<>]*@")
_QUERY = re.compile(r"(://[^\s?#\"'<>]*\?)[^\s\"'<>]+")
_hidden: set[str] = set()


def hide(secret: str) -> None:
    """Let `redact` blot `secret` out from here on, unless it is too short to be one."""
    if len(secret) >= 6:
        _hidden.add(secret)


def hidden() -> frozenset[str]:
    """What `hide` was told so far, for the processes of one's own that are to know it too."""
    return frozenset(_hidden)


def redact(text: str) -> str:
    """`text` fit to be written and printed: no user, password or query string in its URIs, nothing
    that a configuration took from the environment."""
    for secret in sorted(_hidden, key=len, reverse=True):
        text = text.replace(secret, "***")
    return _QUERY.sub(r"\1***", _PASSWORD.sub("***@", text))


def redacted(value: Any) -> Any:
    """Lists and dictionaries with every text in them redacted."""
    if isinstance(value, dict):
        return {key: redacted(item) for key, item in cast("dict[Any, Any]", value).items()}
    if isinstance(value, list):
        return [redacted(item) for item in cast("list[Any]", value)]
    return redact(value) if isinstance(value, str) else value


class TaskeffError(Exception):
    """Something the user can mend: the message names the file, the row or field, and the fix.

    Examples:
        >>> try:
        ...     taskeff.predict("llama-3.1-8b-instruct", cos_low=1.5)
        ... except taskeff.TaskeffError as error:
        ...     print(error)
        CoS-Low 1.5 is not in [-1, 1]; it is a cosine
    """

    def __str__(self) -> str:
        return redact(super().__str__())

    def __reduce__(self) -> tuple[Any, ...]:
        # Ray and Tune keep errors in files, and who reads them does not know what is hidden.
        return type(self), tuple(redacted(list(self.args)))


class ConfigError(TaskeffError):
    """The run's configuration is wrong."""


class DataError(TaskeffError):
    """A task file, a data row or a label is wrong."""


class ModelError(TaskeffError):
    """A model or tokenizer cannot be loaded or does not fit what is asked of it."""


class StorageError(TaskeffError):
    """The storage cannot be read or written."""


class EstimateError(TaskeffError):
    """The numbers given do not allow an estimate."""


class ClusterError(TaskeffError):
    """The cluster cannot place or finish the work."""


def together(problems: Sequence[TaskeffError]) -> TaskeffError:
    """One error that says all of `problems`, a line each; a single one is returned as it is."""
    if len(problems) == 1:
        return problems[0]
    lines = "".join(f"\n- {problem}" for problem in problems)
    return TaskeffError(f"{len(problems)} things are wrong:{lines}")


def cell(value: object, most: int = 60) -> str:
    """A value of a row as messages quote it: cut short, rows are nobody else's business."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."


def names(values: Iterable[object], most: int = 20) -> str:
    """Names of columns or fields, each cut short; a file without a header has cells for names.

    One with blanks around it is quoted: else nobody sees why it is not the one asked for.
    """
    found = [str(value) for value in values]
    shown = [f"{one:.40}" if one == one.strip() else f"{one[:40]!a}" for one in found[:most]]
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(shown) + more


def first_line(error: BaseException) -> str:
    """What an error of foreign code says, on one line, after its kind."""
    lines = str(error).strip().splitlines()
    kind = type(error).__name__
    return f"{kind}: {lines[0].strip():.200}" if lines else kind


def yaml_fault(error: Exception) -> str:
    """What is wrong with a YAML file, on one line."""
    mark = getattr(error, "problem_mark", None)
    if isinstance(error, UnicodeError):
        return "not UTF-8; save it as UTF-8"
    if mark is None:
        return str(error) if type(error) is ValueError else first_line(error)
    problem = " ".join(str(getattr(error, "problem", None) or "not YAML").split())
    hint = "put a template, and text with a colon, in quotes"
    return f"line {mark.line + 1}: {problem}" + ("" if "twice" in problem else f"; {hint}")


def missing(error: ModuleNotFoundError) -> ConfigError:
    """A package that is not installed, in a user's words; raises `error` if it is one of ours."""
    package = (error.name or "taskeff").partition(".")[0]
    if package == "taskeff":
        raise error
    return ConfigError(
        f"this needs the package {package!r}, which what runs a model brings: "
        "pip install 'taskeff[run]'"
    )
