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
    typer.Option(help="float32, bfloat16 or float16; default: the family's, else float32."),
]
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


def shorten(text: str, most: int = 1500) -> str:
    """`text` with its middle cut out where it is longer than `most` characters."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]} [... {len(text) - 2 * half} characters ...] {text[-half:]}"
