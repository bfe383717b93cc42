"""What both pages are made with: templates, style sheets, and the digests that their policy names.

Each page forbids everything but its own style sheet and script (Content-Security-Policy).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined, Template


def template(name: str, **filters: Callable[..., object]) -> Template:
    """A template of this folder, which escapes what it shows and knows no undefined names."""
    environment = Environment(
        loader=PackageLoader("taskeff.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(name)


def asset(name: str) -> str:
    """The text of a style sheet or script of this folder."""
    return resources.files("taskeff.report").joinpath(name).read_text(encoding="utf-8")


def digest(text: str) -> str:
    """The SHA-256 of an inline style or script as a policy names it."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
