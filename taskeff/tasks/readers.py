"""The only code that opens rows: CSV, JSON and Parquet files, local or at any fsspec URI.

A cell is the text that the file has: `0113`, `n/a`, `1.10` and an empty cell stay what they are,
and a JSON number is printed as it is written there. A row that cannot be read is an error on that
row; files are read as a stream, so memory does not grow with their size.
"""

from __future__ import annotations

import codecs
import contextlib
import glob
import io
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any

from fsspec.utils import infer_compression

from taskeff.errors import DataError, TaskeffError, names, redact
from taskeff.storage import filesystem_of
from taskeff.tasks.formats import READERS

FORMATS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".ndjson": "json"}
FORMATS |= {".parquet": "parquet", ".pq": "parquet"}
"""A file's ending -> its format."""
OPTIONS = {  # of each format
    "csv": ("delimiter", "sep", "quotechar", "encoding", "column_names", "names"),
    "json": ("field", "encoding"),
    "parquet": ("columns",),
}
INFLATED, RATIO = 100 << 20, 200
"""Bytes that any compressed file may unpack to, and times its own size that a larger one may."""
# What a file system tells of a file that changes when its content does.
_STAMPS = ("size", "mtime", "ETag", "etag", "LastModified", "md5Hash", "content_md5")


@dataclass(frozen=True)
class SourceRow:
    """One raw row: `values`, or the `error` that kept it from being read.

    Attributes:
        index: of the row in its split, from 0.
        where: file and line, for messages.
    """

    index: int
    where: str
    values: Mapping[str, Any] | None
    error: str | None = None


def format_of(path: str) -> str | None:
    """csv, json or parquet by the file's ending (`.csv.gz` too); None if it tells nothing."""
    found = [FORMATS[suffix] for suffix in _suffixes(path) if suffix in FORMATS]
    return found[-1] if found else None


def _suffixes(path: str) -> list[str]:
    return [s.lower() for s in PurePosixPath(_named(path)).suffixes[-2:]]


def _named(path: str) -> str:
    """`path` without a URI's query."""
    return path.split("?", 1)[0] if "://" in path else path


def check_options(kind: str, options: Mapping[str, Any]) -> None:
    """Refuse what is no option of the format `kind`, or no value of it.

    Raises:
        DataError: naming the option and those there are.
    """
    for name, value in options.items():
        if name not in OPTIONS[kind]:
            known = ", ".join(OPTIONS[kind])
            raise DataError(f"{name!r} is no option of {kind} files; there are: {known}")
        if name in ("column_names", "names", "columns"):
            wanted, fits = "a list of names", isinstance(value, list | tuple) and len(value) > 0
        elif name in ("delimiter", "sep", "quotechar"):
            wanted, fits = "one character", isinstance(value, str) and len(value) == 1
        elif name == "encoding":
            wanted, fits = "a known encoding", isinstance(value, str) and _is_encoding(value)
        else:
            wanted, fits = "a name", isinstance(value, str)
        if not fits:
            raise DataError(f"option {name}: {value!r} is not {wanted}")
    for one, other in (("delimiter", "sep"), ("column_names", "names")):
        if one in options and other in options:
            raise DataError(f"options {one} and {other} say the same; give one of them")


def _is_encoding(name: str) -> bool:
    try:
        return bool(codecs.lookup(name))
    except LookupError:
        return False


def located(path: str, folder: str) -> str:
    """`path` (a file, or a pattern with `*`) below `folder`; what has a scheme is left alone.

    Raises:
        DataError: there is no such file.
    """
    if "://" in path or "://" in folder:
        return path if "://" in path or path.startswith("/") else f"{folder}/{path}"
    full = os.path.join(folder, path)
    if os.path.isdir(full):
        raise DataError(f"{full} is a folder; name its files, as {path}/*.csv")
    if os.path.exists(full):
        return full
    pattern = os.path.join(glob.escape(folder), path)
    if not glob.glob(pattern, recursive=True):
        raise DataError(f"{full} does not exist")
    return pattern


def expanded(path: str) -> list[str]:
    """The files that `path` names: itself where it exists, else what it matches, sorted.

    Raises:
        DataError: nothing matches, or the file system cannot be asked.
    """
    if not any(mark in path.split("://")[-1] for mark in "*?["):
        return [path]
    if "://" not in path:
        found = [path] if os.path.exists(path) else sorted(glob.glob(path, recursive=True))
    else:
        with in_words(redact(path)):
            filesystem, name = filesystem_of(path)
            plain = "*" not in path and filesystem.exists(name)
            names = [name] if plain else sorted(map(str, filesystem.glob(name)))
            found = [str(filesystem.unstrip_protocol(name)) for name in names]
    if not found:
        raise DataError(f"{redact(path)}: no file matches")
    return found


def file_stamp(path: str) -> dict[str, str]:
    """The file's size and time or checksum, which change when its content does.

    Raises:
        DataError: it is missing or cannot be reached.
    """
    with in_words(_named(redact(path))):
        filesystem, name = filesystem_of(path)
        info = filesystem.info(name)
    return {key: str(info[key]) for key in _STAMPS if info.get(key) is not None}


@contextlib.contextmanager
def in_words(shown: str) -> Iterator[_Place]:
    """Whatever a file system or a parser raises inside becomes a DataError that names `shown`."""
    place = _Place()
    try:
        yield place
    except TaskeffError as error:
        raise DataError(f"{shown}: {error}") from None
    except Exception as error:
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        if isinstance(error, FileNotFoundError):
            why = "no such file; check the path"
        after = f" after {place.last}" if place.last else ""
        raise DataError(f"{shown} cannot be read{after}: {redact(why)}") from error


@dataclass
class _Place:
    last: str = ""


def read_file(
    path: str,
    kind: str,
    options: Mapping[str, Any] | None = None,
    *,
    first: int = 0,
    content: bytes | None = None,
) -> Iterator[SourceRow]:
    """The rows of one file, numbered from `first`.

    Args:
        path: a local file or fsspec URI; compressed where its ending says so.
        kind: csv (cells are text), json (a list of objects, or one per line) or parquet.
        options: see `OPTIONS`; with json's `field` the rows stand under that name of one object.
        content: of the file, where it is not read from `path`.

    Raises:
        DataError: the file as a whole cannot be read, naming it; an option that is not known.
    """
    options = dict(options or {})
    shown = _named(redact(path))
    with in_words(shown) as place:
        check_options(kind, options)
        if kind == "csv" and ".tsv" in _suffixes(path) and "sep" not in options:
            options.setdefault("delimiter", "\t")
        with _opened(path) if content is None else io.BytesIO(content) as file:
            for index, raw in enumerate(READERS[kind](file, options), first):
                place.last, values, error = raw
                yield SourceRow(index, f"{shown}, {place.last}", values, error)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    filesystem, name = filesystem_of(path)
    if infer_compression(name) is None:
        with filesystem.open(name, "rb") as file:
            yield file
        return
    most = max(INFLATED, (filesystem.size(name) or 0) * RATIO)
    with _unpacked(filesystem, name) as file:
        yield io.BufferedReader(_Inflated(file, most))  # type: ignore[arg-type]


@contextlib.contextmanager
def _unpacked(filesystem: Any, name: str) -> Iterator[IO[bytes]]:
    if infer_compression(name) != "zip":
        with filesystem.open(name, "rb", compression="infer") as file:
            yield file
        return
    with filesystem.open(name, "rb") as packed, zipfile.ZipFile(packed) as archive:
        found = [m for m in archive.namelist() if not m.endswith("/") and "__MACOSX/" not in m]
        if len(found) != 1:
            raise DataError(f"holds {len(found)} files ({names(found)}); unpack it and name them")
        with archive.open(found[0]) as file:
            yield file


class _Inflated(io.RawIOBase):
    """What is unpacked, until it is more than any text would pack."""

    def __init__(self, file: IO[bytes], most: int):
        self._file, self._left, self._most = file, most, most

    def readable(self) -> bool:
        """It is read from only."""
        return True

    def readinto(self, buffer: Any) -> int:
        """The next bytes; raises DataError once they are too many."""
        data = self._file.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise DataError(
                f"unpacks to more than {self._most >> 20} MiB, {RATIO} times its size; unpack it, "
                "if that is meant"
            )
        buffer[: len(data)] = data
        return len(data)
