"""What every page is made with: a template, its style sheet and script, the policy that names them.

Each page forbids everything but its own style sheet and script (Content-Security-Policy).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def page(
    name: str,
    css: str,
    script: str = "",
    *,
    filters: Mapping[str, Callable[..., object]] | None = None,
    **shown: Any,
) -> str:
    """A template of this folder, filled: it escapes what is `shown`, undefined names are errors.

    Args:
        css, script: the text of the page's own, which its policy then allows.
    """
    environment = Environment(
        loader=PackageLoader("taskeff.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters or {}
    return environment.get_template(name).render(
        css=Markup(css),
        script=Markup(script),
        css_digest=_digest(css),
        script_digest=_digest(script),
        **shown,
    )


def asset(*names: str) -> str:
    """The text of style sheets or scripts of this folder, one after the other."""
    folder = resources.files("taskeff.report")
    return "".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
