"""CSV, JSON and Parquet -> rows as they are written; a row that cannot be read is its own error.

A CSV's cells are its text: `0113`, `n/a`, `1.10` and an empty cell stay what they are. A JSON
number is printed as it is written. Each reader yields (place, values or None, error or None).
"""

from __future__ import annotations

import contextlib
import csv
import datetime
import decimal
import io
import itertools
import json
import re
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import IO, Any

import pyarrow.parquet as pq

from taskeff.errors import DataError, first_line, names
from taskeff.errors import cell as quoted
from taskeff.schema import DEEPEST
from taskeff.tasks.csv_quotes import Lines, Quotes

BATCH = 1024  # rows of a Parquet file in memory at once
PIECE = 1 << 16  # characters of a JSON list read at once
LONGEST = 1 << 24  # characters of a line, a cell, an entry of a list
WHOLE = 1 << 28  # characters of a JSON object that is read at once
COLUMNS = 10_000
WATCHED = 100  # rows within which a CSV shows that its header fits
_NOT_UTF8 = (
    "not UTF-8; save the file as CSV UTF-8 (JSON as UTF-8), or of a task's data give `encoding` in "
    "dataset_kwargs (cp1252 for a spreadsheet of Western Windows)"
)
_OTHER_BYTES = re.compile("[\udc80-\udcff]")
_UTF_16 = "is UTF-16; save it as UTF-8, or of a task's data give `encoding: utf-16`"
_OTHER_KINDS = (  # how a file begins, read as UTF-8
    ("\udcff\udcfe", _UTF_16),
    ("\udcfe\udcff", _UTF_16),
    (
        "PK\3\4",
        "is a spreadsheet's own format or a zip archive; save it as CSV UTF-8",
    ),
    ("\udcd0\udccf\x11\udce0", "is a spreadsheet's own format; save it as CSV UTF-8"),
    ("\x1f\udc8b", "is compressed; give its name the ending .gz"),
    ("PAR1", "is Parquet; give its name the ending .parquet"),
)

csv.field_size_limit(LONGEST)

Raw = tuple[str, Mapping[str, Any] | None, str | None]


class Number(float):
    """A number that is printed as it was written: 1.10, 1e5."""

    written: str

    def __new__(cls, written: str | float) -> Number:
        number = super().__new__(cls, written)
        number.written = str(written)
        return number

    def __str__(self) -> str:
        return self.written

    __repr__ = __str__


def _text(file: IO[bytes], options: Mapping[str, Any], newline: str) -> io.TextIOWrapper:
    # What is no UTF-8 survives as surrogates, so that it is an error of its row only.
    encoding = options.get("encoding", "utf-8-sig")
    return io.TextIOWrapper(file, encoding, errors="surrogateescape", newline=newline)


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    """The lines of a text, none of which takes the memory of all."""
    for number, line in enumerate(iter(lambda: text.readline(LONGEST + 1), ""), 1):
        if len(line) > LONGEST:
            raise DataError(f"line {number} has more than {LONGEST:,} characters; cut it")
        yield line


def _readable(line: str) -> str:
    """The first line of a file, where that is text."""
    for mark, what in _OTHER_KINDS:
        if line.startswith(mark):
            raise DataError(what)
    if "\0" in line:
        raise DataError("begins with zero bytes, as UTF-16 does; save it as UTF-8")
    return line


def _checked(row: Any) -> tuple[Mapping[str, Any] | None, str | None]:
    """The row, or what is wrong with it."""
    if not isinstance(row, dict):
        return None, f"expected an object, got {type(row).__name__}"
    if len(row) > COLUMNS:
        return None, f"{len(row):,} fields, more than {COLUMNS:,}"
    error = _fault(row, DEEPEST)
    return (None, error) if error else (row, None)


def _fault(value: Any, depth: int) -> str | None:
    """What makes a value no text that a tokenizer can read."""
    if isinstance(value, str):
        return None if value.isascii() else _not_text(value)
    if not isinstance(value, dict | list):
        return None
    if not depth:
        return "lists or objects are nested too deeply"
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        if error := _fault(key, depth) or _fault(item, depth - 1):
            return f"{key!a}: {error}" if isinstance(value, dict) and depth == DEEPEST else error
    return None


def _not_text(value: str) -> str | None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        if _OTHER_BYTES.search(value):
            return _NOT_UTF8
        return f"holds {value[error.start]!a}, half a character; the text was cut inside it"
    return None


# CSV


def _csv_rows(file: IO[bytes], options: Mapping[str, Any]) -> Iterator[Raw]:
    text = _lines(_text(file, options, ""))
    head = list(itertools.islice(text, WATCHED))
    start = _readable(head[0]) if head else ""
    delimiter = options.get("delimiter", options.get("sep")) or _delimiter(start)
    quote = options.get("quotechar", '"')
    lines = Lines(itertools.chain(head, text))
    reader = csv.reader(lines, delimiter=delimiter, quotechar=quote, strict=True)
    header = options.get("column_names", options.get("names"))
    header = header or next((cells for cells in reader if cells), None)
    if header is None:
        return
    columns = _columns([str(name) for name in header])
    quotes = Quotes(len(columns), delimiter, quote, head)
    held: list[Raw] = []
    fits = False
    while True:
        lines.held.clear()
        place, cells = f"line {reader.line_num + 1}", None
        try:
            if (cells := next(reader, None)) is None:
                break
        except csv.Error as error:
            row: Raw = place, None, f"not CSV: {error}; look for a quote that is not closed"
        else:
            if not cells:
                continue
            row = _csv_row(place, cells, columns, quotes.trouble(cells, lines.held))
        # A header that fits no row is one fault, not one of every row.
        fits = fits or (cells is not None and len(cells) == len(columns))
        if not fits and (held or cells):
            held.append(row)
            if len(held) == WATCHED:
                break
            continue
        yield from held
        held.clear()
        yield row
    if held:
        where, _, error = held[0]
        raise DataError(f"{where} and all that follow: {error}")


def _csv_row(place: str, cells: list[str], columns: list[str], error: str | None) -> Raw:
    if error:
        return place, None, error
    return place, *_checked({name: c for name, c in zip(columns, cells, strict=True) if name})


def _delimiter(header: str) -> str:
    """The mark that a header has most of: spreadsheets of some locales save with semicolons."""
    bare = re.sub('"[^"]*"', "", header)
    return max(",;\t", key=bare.count)


def _columns(header: list[str]) -> list[str]:
    """The header's names; a column without one cannot be asked for, and is left out."""
    if len(header) > COLUMNS:
        raise DataError(
            f"{len(header):,} columns, more than {COLUMNS:,}; keep those that are asked for"
        )
    counts = Counter(header)
    if twice := next((name for name in header if name and counts[name] > 1), None):
        raise DataError(f"two columns are called {quoted(twice)}; rename one")
    for name in header:
        if error := _not_text(name):
            raise DataError(f"the header is {error}")
    return header


# JSON


def _whole(digits: str) -> int | Number:
    """A whole number; what Python would print otherwise is kept as it is written."""
    return Number(digits) if digits == "-0" or len(digits) > 4000 else int(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, times in Counter(n for n, _ in pairs).items() if times > 1)
        raise DataError(f"the field {quoted(twice)} is there twice; drop one")
    return found


_JSON = json.JSONDecoder(
    parse_float=Number, parse_constant=Number, parse_int=_whole, object_pairs_hook=_object
)
_GAP = re.compile(r"\s*")
_AFTER = re.compile(r"\s*([,\]])")


def _json_rows(file: IO[bytes], options: Mapping[str, Any]) -> Iterator[Raw]:
    text = _text(file, options, "\n")
    if "field" in options:
        if len(whole := text.read(WHOLE + 1)) > WHOLE:
            raise DataError(f"has more than {WHOLE:,} characters; write an object per line")
        yield from _json_field(_readable(whole), options["field"])
        return
    begun = False
    for number, line in enumerate(_lines(text), 1):
        if not line.strip():
            continue
        if not begun and _readable(line).lstrip().startswith("["):
            yield from _json_list(line, text)
            return
        if not begun and line.strip() == "{":
            raise DataError(
                "is one object over many lines; write a list or an object per line, or give the "
                "`field` that holds its rows"
            )
        begun = True
        yield f"line {number}", *_json_line(line)


def _json_line(line: str) -> tuple[Mapping[str, Any] | None, str | None]:
    if not line.isascii() and _OTHER_BYTES.search(line):
        return None, _NOT_UTF8
    try:
        return _checked(_JSON.decode(line))
    except DataError as error:
        return None, str(error)
    except RecursionError:
        return None, "lists or objects are nested too deeply"
    except Exception as error:  # noqa: BLE001 - whatever a parser raises is its line's fault
        why = str(error) if isinstance(error, ValueError) else first_line(error)
        return None, f"not JSON: {why}; mend the line"


def _json_field(text: str, field: str) -> Iterator[Raw]:
    try:
        found = _JSON.decode(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON: {error}") from None
    if isinstance(found, dict):
        if field not in found:
            raise DataError(f"no field {field!r}; it has {names(found) or 'none'}")
        found = found[field]
    if not isinstance(found, list):
        raise DataError(f"expected a list of rows under {field!r}, found {quoted(found)}")
    for number, row in enumerate(found, 1):
        yield f"entry {number}", *_checked(row)


def _json_list(held: str, text: IO[str]) -> Iterator[Raw]:
    """A list entry by entry: it takes the memory of its longest one."""
    position, number, more = held.index("[") + 1, 0, True
    while True:
        start = _GAP.match(held, position).end()  # type: ignore[union-attr]
        if not number and held[start : start + 1] == "]":
            return
        end, after, value = start, None, None
        wrong = "the list is cut off"
        try:
            value, end = _JSON.raw_decode(held, start)
            after = _AFTER.match(held, end)
            if after is None and _GAP.match(held, end).end() < len(held):  # type: ignore[union-attr]
                raise json.JSONDecodeError("expected , or ] after it", held, end)
        except RecursionError:
            raise DataError(f"entry {number + 1}: nested too deeply") from None
        except DataError as error:
            raise DataError(f"entry {number + 1}: {error}") from None
        except json.JSONDecodeError as error:
            wrong = f"not JSON: {error.msg}"
            # What breaks off at the end of what is read so far may go on in the next piece.
            cut = error.pos > len(held) - 16 or error.msg.startswith("Unterminated")
            more = more and cut
        if after is not None:
            number, position = number + 1, after.end()
            yield f"entry {number}", *_checked(value)
            if after[1] == "]":
                return
        elif len(held) - position > LONGEST:
            raise DataError(f"entry {number + 1} has more than {LONGEST:,} characters; cut it")
        elif not more:
            raise DataError(f"entry {number + 1}: {wrong}")
        else:
            piece = text.read(max(PIECE, len(held) - position))
            held, position, more = held[position:] + piece, 0, bool(piece)


# Parquet


def _parquet_rows(file: IO[bytes], options: Mapping[str, Any]) -> Iterator[Raw]:
    table = pq.ParquetFile(file)
    columns = options.get("columns")
    _columns(table.schema_arrow.names)
    for name in columns or ():
        if name not in table.schema_arrow.names:
            there = names(table.schema_arrow.names)
            raise DataError(f"no column {name!r}; there are: {there}")
    number = 0
    for batch in table.iter_batches(batch_size=BATCH, columns=columns):
        try:
            rows: list[Any] = batch.to_pylist()
        except Exception:  # noqa: BLE001 - a value that Python cannot hold is its row's fault
            rows = [_alone(batch.slice(i, 1)) for i in range(len(batch))]
        for row in rows:
            number += 1
            if isinstance(row, str):
                yield f"row {number}", None, row
            else:
                yield f"row {number}", *_checked(plain(row))


def _alone(batch: Any) -> dict[str, Any] | str:
    """The only row of a batch, or what is wrong with it."""
    row: dict[str, Any] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            row[name] = column[0].as_py()
        except Exception as error:  # noqa: BLE001 - see above
            return f"{name!r} cannot be read: {error}"
    return row


def plain(value: Any) -> Any:
    """The value as text, number, truth value, None, or lists and dictionaries of these.

    Dates become ISO text, decimals numbers printed as they are, bytes text where they are UTF-8;
    other bytes, and what is none of these, stay as they are and no template can use them.
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        with contextlib.suppress(UnicodeDecodeError):
            return value.decode()
    if isinstance(value, decimal.Decimal):
        return Number(str(value))
    if isinstance(value, datetime.date | datetime.time | datetime.timedelta | uuid.UUID):
        return str(value)
    return value


READERS = {"csv": _csv_rows, "json": _json_rows, "parquet": _parquet_rows}
