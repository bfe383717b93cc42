"""The command line: parse, call the library, print. One verb per step of the workflow."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated

import typer
from rich.text import Text

from taskeff.cli import estimate, families, init, label, pilot, rank, run, signal
from taskeff.errors import TaskeffError, missing
from taskeff.screen import Screen, shown_streams
from taskeff.version import version

INTERRUPTED = 130
"""What typer makes of a KeyboardInterrupt, without a word: 128 + SIGINT, as shells do."""

app = typer.Typer(
    help="How many labelled examples will this task need?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for verbs in (init, run, signal, label, pilot, estimate, families, rank):
    app.add_typer(verbs.app)


def _say_version(asked: bool) -> None:
    if asked:
        print(f"taskeff {version()}")
        raise typer.Exit


@app.callback()
def taskeff(
    show_version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=_say_version),
    ] = False,
) -> None:
    """How many labelled examples will this task need?"""


def main() -> None:
    """Entry point: a TaskeffError is one line on standard error and exit code 2; Ctrl-C is 130."""
    # What libraries warn of is no line of ours; -W or PYTHONWARNINGS brings it back.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        with shown_streams(), warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            app()
    except (TaskeffError, ModuleNotFoundError) as caught:
        error = missing(caught) if isinstance(caught, ModuleNotFoundError) else caught
        line = Text.assemble(("error:", "bold red"), f" {error}")
        Screen(stderr=True).print(line, soft_wrap=True)
        sys.exit(2)
    except SystemExit as ended:
        if ended.code == INTERRUPTED:
            Screen(stderr=True).print("stopped; the same command goes on where this one ended")
        raise
