"""CSV for spreadsheets: read as UTF-8 there, and no cell is run as a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

# What makes a spreadsheet run a cell as a formula.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def csv_bytes(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> bytes:
    """The rows as CSV; texts that a spreadsheet would run as formulas get a leading quote."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(columns)
    writer.writerows([_neutral(row[name]) for name in columns] for row in rows)
    # The mark lets a spreadsheet read it as UTF-8.
    return buffer.getvalue().encode("utf-8-sig")


def restored(cell: str) -> str:
    """The text that `csv_bytes` wrote as this cell."""
    return cell[1:] if cell.startswith("'") and _is_formula(cell) else cell


def _neutral(value: object) -> object:
    # A text that begins with quotes already gets one more, so that reading can take one off.
    return f"'{value}" if isinstance(value, str) and _is_formula(value) else value


def _is_formula(text: str) -> bool:
    return text.lstrip("'").startswith(FORMULA_STARTS)
