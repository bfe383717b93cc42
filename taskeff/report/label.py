"""The labelling page: one self-contained file that shows a row at a time and keeps the labels."""

from __future__ import annotations

from taskeff.coslow.sheet import FILLED, Sheet, keys
from taskeff.report import html
from taskeff.storage import Store

PAGE = "label.html"


def write_label_page(sheet: Sheet) -> str:
    """Publish `label.html` beside the rows; returns its path."""
    store = Store(sheet.out)
    store.write_bytes(render(sheet).encode(), PAGE)
    return store.path(PAGE)


def render(sheet: Sheet) -> str:
    """The page as text; the same sheet gives the same bytes."""
    data = {
        "kept_as": f"taskeff-label-{sheet.digest}",
        "file": FILLED,
        "choices": sheet.choices,
        # One key press is one character.
        "keys": [key if key and len(key) == 1 else None for key in keys(sheet.choices or ())],
        "records": sheet.records,
    }
    return html.page(
        "label.html.j2",
        html.asset("page.css", "label.css"),
        html.asset("label.js"),
        sheet=sheet,
        data=data,
        file=FILLED,
        in_place=sheet.handed_out == FILLED,
    )
