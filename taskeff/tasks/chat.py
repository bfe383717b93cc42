"""A tokenizer's chat template, rendered as transformers does, but with its work bounded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension

from taskeff.tasks import sandbox

# Templates that print today's date would give another prompt, so another measurement, every day;
# this is the day that Llama-3.1's own template falls back on.
_TODAY = "26 Jul 2024"


class _Generation(Extension):
    """`{% generation %}` marks the assistant's words for training; it prints what it holds."""

    tags = frozenset(("generation",))  # type: ignore[assignment]

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def _fail(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _environment() -> sandbox.BoundedEnvironment:
    found = sandbox.BoundedEnvironment(
        filters={"tojson": _to_json},
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, "jinja2.ext.loopcontrols"],
    )
    found.globals |= {"raise_exception": _fail, "strftime_now": lambda pattern: _TODAY}
    return found


_ENVIRONMENT = _environment()


@lru_cache(maxsize=16)
def _compiled(template: str) -> jinja2.Template:
    return _ENVIRONMENT.from_string(template)


def render_chat(
    template: str,
    messages: Sequence[Mapping[str, str]],
    *,
    add_generation_prompt: bool,
    special_tokens: Mapping[str, Any],
) -> str:
    """The conversation as the model reads it.

    Templates that know `enable_thinking` have it off, and the date is pinned.

    Raises:
        Exception: whatever a template can raise, `SecurityError` among it.
    """
    values = {
        **special_tokens,
        "messages": messages,
        "tools": None,
        "documents": None,
        "add_generation_prompt": add_generation_prompt,
        "enable_thinking": False,
    }
    return sandbox.render(_compiled(template), values)
