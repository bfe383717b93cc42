"""The command line: parse, call the library, print. One verb per step of the workflow."""

from __future__ import annotations

import sys

import typer
from rich.console import Console
from rich.text import Text

from taskeff.cli import estimate, init, label, pilot, rank, run, signal
from taskeff.errors import TaskeffError

INTERRUPTED = 130
"""What typer makes of a KeyboardInterrupt, without a word: 128 + SIGINT, as shells do."""

app = typer.Typer(
    help="How many labelled examples will this task need?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for verbs in (init.app, run.app, signal.app, label.app, pilot.app, estimate.app, rank.app):
    app.add_typer(verbs)


def main() -> None:
    """Entry point: a TaskeffError is one line on standard error and exit code 2; Ctrl-C is 130."""
    try:
        app()
    except TaskeffError as error:
        line = Text.assemble(("error:", "bold red"), f" {error}")
        Console(stderr=True).print(line, soft_wrap=True)
        sys.exit(2)
    except SystemExit as ended:
        if ended.code == INTERRUPTED:
            Console(stderr=True).print("stopped; the same command goes on where this one ended")
        raise
