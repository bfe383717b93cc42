"""Labelling on a terminal, a line per answer; every label is written before the next question."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from taskeff.coslow.sheet import Sheet, chosen, keys

COMMANDS = "u undo, s skip, q quit"


def label(sheet: Sheet, console: Console) -> None:
    """Ask for the labels that are missing, until the rows, the answers or the patience end.

    Raises:
        DataError: the file was changed by somebody else meanwhile.
        KeyboardInterrupt: all answers before it are written.
    """
    rows = sheet.left
    if sheet.instruction:
        console.print(Text(sheet.instruction, style="dim"))
    at = 0
    while True:
        if at < len(rows):
            _show(sheet, rows[at], console)
            answer = _ask(console, f"label ({COMMANDS}): ")
        else:
            answer = _ask(console, "that was the last row (u undo, Enter ends): ") or "q"
        if answer is None or answer == "q":
            return
        if answer == "u":
            if at == 0:
                console.print("nothing to undo")
                continue
            at -= 1
            if sheet.records[rows[at]]["label"]:
                sheet.write(rows[at], "")
        elif at == len(rows):
            console.print("all rows are asked for")
        elif answer == "s":
            at += 1
        elif found := _label(answer, sheet.choices, console):
            sheet.write(rows[at], found)
            at += 1


def _show(sheet: Sheet, place: int, console: Console) -> None:
    console.print()
    of = f"row {place + 1} of {len(sheet.records)}"
    console.print(Text(f"{of}, {sheet.labelled} labelled", style="bold"))
    console.print(Text(sheet.records[place]["text"]))
    if sheet.choices:
        menu = [
            Text.assemble((f"{key} ", "bold") if key and key != choice else "", choice)
            for key, choice in zip(keys(sheet.choices), sheet.choices, strict=True)
        ]
        console.print(Text("   ").join(menu))


def _ask(console: Console, question: str) -> str | None:
    """A line without the space around it, None at the end of the input."""
    while True:
        try:
            answer = console.input(Text(question, style="bold")).strip()
            answer.encode()
        except EOFError:
            return None
        except UnicodeError:
            console.print("that is not UTF-8; once more")
            continue
        return answer


def _label(answer: str, choices: Sequence[str] | None, console: Console) -> str | None:
    # A backslash says that what follows is a label, should one be called like a command.
    answer = answer[1:].strip() if answer.startswith("\\") else answer
    if not answer:
        console.print(f"type a label ({COMMANDS})")
        return None
    if choices is None:
        return answer
    found = chosen(answer, choices)
    if found is None:
        console.print(Text(f"{answer!r} is none of the labels; give a number or a label"))
    return found
