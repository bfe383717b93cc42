"""Users' Jinja2 templates over one row's columns, in a sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from taskeff.errors import DataError

_ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined,
    # An empty cell must be found out as an empty answer, not become the word "None".
    finalize=lambda value: "" if value is None else value,
)


def render(template: str, row: Mapping[str, Any], *, field: str) -> str:
    """A Jinja2 template over one row's columns, sandboxed.

    The whole row is `doc`, for columns whose names are no words: `doc["question-X"]`.

    Raises:
        DataError: a column is missing or the template is wrong.
    """
    try:
        return _compiled(template).render({"doc": row, **row}).strip()
    except jinja2.UndefinedError as error:
        raise DataError(f"{field}: {error}; columns are: {', '.join(map(str, row))}") from None
    except (jinja2.TemplateError, TypeError, ValueError) as error:
        raise DataError(f"{field}: template {template!r}: {error}") from None


def columns_of(template: str) -> set[str]:
    """The columns (or `doc`) that a template reads.

    Raises:
        ValueError: it is no Jinja2 template.
    """
    try:
        return meta.find_undeclared_variables(_ENVIRONMENT.parse(template))
    except jinja2.TemplateSyntaxError as error:
        raise ValueError(f"template {template!r}, line {error.lineno}: {error.message}") from None


@lru_cache(maxsize=256)
def _compiled(template: str) -> jinja2.Template:
    return _ENVIRONMENT.from_string(template)
