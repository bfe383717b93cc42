"""A CSV's lines and its quotes: a quoted cell that has swallowed rows of its own is found out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator


class Lines:
    """The lines of a text; those of the record that is being read are `held` as they stand."""

    def __init__(self, text: Iterator[str]):
        self._text = text
        self.held: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.held.append(next(self._text))
        return self.held[-1]


class Quotes:
    """Notices a quoted cell that has swallowed rows because its quote is not closed.

    Lines of a text look like rows too where they have as many commas as there are columns less
    one. So some column must hold, in each of the lines, what it also holds in another row.
    """

    MOST, LONGEST = 1000, 64  # values remembered of a column, and their characters

    def __init__(self, columns: int, delimiter: str, quote: str, head: list[str]):
        self._columns, self._delimiter, self._quote = columns, delimiter, quote
        # A quote may be open from the first row on: what the lines there repeat counts as seen.
        rows = [row for row in map(self._split, head) if len(row) == columns]
        cells = [Counter(row[column] for row in rows) for column in range(columns)]
        self._seen = [{cell for cell, times in found.items() if times > 1} for found in cells]

    def _split(self, line: str) -> list[str]:
        return line.replace(self._quote, "").rstrip("\r\n").split(self._delimiter)

    def trouble(self, cells: list[str], lines: list[str]) -> str | None:
        """What is wrong with a record, of these cells and these lines of the file."""
        if len(lines) > 1 and self._are_rows(lines):
            return (
                f"a quoted cell runs over {len(lines)} lines that look like rows of their own; "
                "close the quote, or double it where it belongs to the text"
            )
        if len(cells) != self._columns:
            over = f" on {len(lines)} lines (is a quote not closed?)" if len(lines) > 1 else ""
            return (
                f"{len(cells)} cells{over} under {self._columns} columns; quote the commas that "
                "belong to a cell, drop those at the end of lines, name every column"
            )
        for seen, cell in zip(self._seen, cells, strict=True):
            if len(cell) <= self.LONGEST and len(seen) < self.MOST:
                seen.add(cell)
        return None

    def _are_rows(self, lines: list[str]) -> bool:
        rows = [self._split(line) for line in lines]
        if self._columns < 2 or any(len(row) != self._columns for row in rows):
            return False
        return any(
            all(cell and cell in seen for cell in column)
            for seen, column in zip(self._seen, zip(*rows, strict=True), strict=True)
        )
