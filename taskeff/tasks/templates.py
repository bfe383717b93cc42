"""Users' Jinja2 templates over one row's columns, in a sandbox; what they print is plain text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import meta

from taskeff.errors import DataError, first_line, names
from taskeff.tasks import sandbox

PLAIN = (str, int, float, bool, type(None))


class _Fields(dict[str, Any]):
    """A column that holds fields: they can be read by name, but not printed as one."""

    def __init__(self, values: Mapping[str, Any], place: str = ""):
        dot = f"{place}." if place else ""
        super().__init__({key: _guarded(value, f"{dot}{key}") for key, value in values.items()})
        self.place = place or "doc"

    def __repr__(self) -> str:
        raise DataError(
            f"prints the fields of {self.place!r} ({names(self)}) as Python writes them; name "
            "one of them"
        )


class _Missing(jinja2.StrictUndefined):
    """A column or field that is not there, in a user's words."""

    @property
    def _undefined_message(self) -> str:
        name, there = self._undefined_name, self._undefined_obj
        if not isinstance(there, _Fields):
            return super()._undefined_message
        if there.place != "doc":
            return f"no field {name!r} in {there.place!r}; it has {names(there) or 'none'}"
        return f"no column {name!r}"


class _NotPlainError(DataError, jinja2.TemplateRuntimeError):
    """A template uses what it must not see."""


class _Method:
    """What a template finds under a name of Python's: to be called, not printed."""

    def __init__(self, method: Any, name: str):
        self.__wrapped__, self._name = method, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__wrapped__(*args, **kwargs)

    def __repr__(self) -> str:
        raise DataError(f"prints the method {self._name!r}; no column or field is called that")


class _Environment(sandbox.BoundedEnvironment):
    def printable(self, value: Any) -> Any:
        return _printable(value)

    def getattr(self, obj: Any, attribute: str) -> Any:
        # A field called `items` or `count` is meant, not Python's method of that name.
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return _called(super().getattr(obj, attribute), attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        return _called(super().getitem(obj, argument), argument)


def _called(value: Any, name: Any) -> Any:
    if callable(value) and not isinstance(value, jinja2.Undefined):
        return _Method(value, str(name))
    return value


def _printable(value: Any) -> Any:
    # An empty cell must be found out as an empty answer, not become the word "None".
    if value is None:
        return ""
    if isinstance(value, (*PLAIN, jinja2.Undefined)):
        return value
    if isinstance(value, list | tuple):
        for item in value:
            _printable(item)
        return value
    repr(value)  # ours say which column it is
    raise DataError(f"prints a {type(value).__name__}, which is no text, number or list of these")


_ENVIRONMENT = _Environment(undefined=_Missing)


def render(template: str, row: Mapping[str, Any], *, field: str) -> str:
    """A Jinja2 template over one row's columns, sandboxed.

    The whole row is `doc`, for columns whose names are no words: `doc["question-X"]`.

    Args:
        row: text, numbers, booleans, None, lists and mappings of these; a column of anything else
            may be there, but not be used.

    Raises:
        DataError: a column is missing, the template is wrong, fails on this row, takes more work
            than a row may (`taskeff.tasks.sandbox`), uses a column that holds anything else, or
            prints what is no text, number, truth value or list of these.
    """
    try:
        doc = _Fields(row)
        return sandbox.render(_compiled(template), {"doc": doc, **doc}).strip()
    except DataError as error:
        raise DataError(f"{field}: {error}") from None
    except jinja2.UndefinedError as error:
        raise DataError(f"{field}: {error!s:.200}; columns are: {names(row)}") from None
    except Exception as error:  # noqa: BLE001 - a template can raise whatever Python can
        raise DataError(f"{field}: template {template!r:.200}: {first_line(error)}") from None


def column(name: str) -> str:
    """The template of one column, whatever it is called."""
    return "{{ doc[" + json.dumps(name, ensure_ascii=False) + "] }}"


@lru_cache(maxsize=1024)
def columns_of(template: str) -> frozenset[str]:
    """The columns (or `doc`) that a template reads.

    Raises:
        ValueError: it is no Jinja2 template.
    """
    try:
        return frozenset(meta.find_undeclared_variables(_ENVIRONMENT.parse(template)))
    except jinja2.TemplateSyntaxError as error:
        raise ValueError(f"template {template!r}, line {error.lineno}: {error.message}") from None
    except RecursionError:
        raise ValueError("template is nested too deeply") from None


@lru_cache(maxsize=256)
def _compiled(template: str) -> jinja2.Template:
    return _ENVIRONMENT.from_string(template)


def _guarded(value: Any, place: str) -> Any:
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, Mapping):
        return _Fields(value, place)
    if isinstance(value, list | tuple):
        return [_guarded(item, place) for item in value]
    what = "bytes that are not UTF-8 text" if isinstance(value, bytes) else type(value).__name__
    return jinja2.StrictUndefined(f"uses {place!r}, which holds {what}", exc=_NotPlainError)
