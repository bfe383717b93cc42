"""Verb of the labelling: what `select` handed out is filled in a browser or on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from taskeff.coslow.sheet import Sheet

app = typer.Typer()


@app.command()
def label(
    out: Annotated[Path, typer.Argument(help="The folder that `select` wrote.")],
    terminal: Annotated[
        bool, typer.Option("--terminal", help="Ask here, a line per row, instead of in a browser.")
    ] = False,
) -> None:
    """Label what `select` handed out: a page to open in a browser, or --terminal.

    The page OUT/label.html needs no server; it keeps the labels in the browser and downloads the
    filled file. On the terminal every answer is written to OUT/to_annotate.jsonl at once.
    """
    from taskeff.coslow.sheet import FILLED, open_sheet

    sheet = open_sheet(out)
    if terminal:
        _ask(sheet)
        return
    from taskeff.report.label import write_label_page

    page = write_label_page(sheet)
    print(f"{_standing(sheet)}; open {page} in a browser")
    print(f"labelled there, put the downloaded {FILLED} at {sheet.path}, then:")
    print(f"  {sheet.score_command()}")


def _ask(sheet: Sheet) -> None:
    from taskeff.cli.terminal import label as ask
    from taskeff.screen import Screen

    try:
        ask(sheet, Screen(highlight=False))
    finally:
        print()
        print(f"{_standing(sheet)} in {sheet.path}")
        if sheet.left:
            print(f"go on with: taskeff label {sheet.out} --terminal")
        else:
            print(f"then: {sheet.score_command()}")


def _standing(sheet: Sheet) -> str:
    return f"{sheet.labelled} of {len(sheet.records)} rows are labelled"
