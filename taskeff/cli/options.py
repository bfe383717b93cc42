"""What several verbs read and print."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Model = Annotated[str, typer.Option(help="A Hugging Face id or folder.")]
TaskName = Annotated[str, typer.Option(help="A bundled task's name or a task file.")]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="float32, bfloat16 or float16; default: the family's, else the checkpoint's."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only results and errors.")]
Family = Annotated[
    str | None, typer.Option(help="Measure as this family was: its name, folder or file.")
]


def show(values: dict[str, Any], as_json: bool) -> None:
    """Print `values`, a line each or as JSON."""
    if as_json:
        print(json.dumps(values, indent=1, sort_keys=True))
        return
    for key, value in values.items():
        print(f"{key:<16} {value:.4g}" if isinstance(value, float) else f"{key:<16} {value}")


def split(value: str | None) -> list[str] | None:
    """The parts of `a,b`; None where there are none."""
    return [part.strip() for part in value.split(",") if part.strip()] if value else None


def integers(option: str, value: str | None) -> list[int] | None:
    """The whole numbers of `50,100`; None where there are none.

    Raises:
        ConfigError: another thing among them; names the option.
    """
    from taskeff.errors import ConfigError

    try:
        return [int(part) for part in split(value) or []] or None
    except ValueError:
        raise ConfigError(f"{option} {value!r}: give whole numbers, like 50,100") from None


def shorten(text: str, most: int = 1500) -> str:
    """`text` with its middle cut out where it is longer than `most` characters."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]} [... {len(text) - 2 * half} characters ...] {text[-half:]}"
