"""Rows of a task's training split one at a time, each with the file and line it comes from.

A row that cannot be read or rendered is an error on that row: one bad line among millions costs
that line. Files are read as a stream, locally or from any fsspec URI, so memory does not grow with
their size (but for a JSON list, which is parsed whole).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from heapq import heappush, heapreplace
from typing import IO, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from taskeff.errors import DataError
from taskeff.storage import redact
from taskeff.tasks.source import FILE_FORMATS, source_rows
from taskeff.tasks.task import TaskSpec, is_left_out, row_text

BATCH = 1024  # Parquet rows in memory at once
# What a file system tells of a file that changes when its content does.
_STAMPS = ("size", "mtime", "ETag", "etag", "LastModified", "md5Hash", "content_md5")


@dataclass(frozen=True)
class SourceRow:
    """One raw row: `values`, or the `error` that kept it from being read."""

    index: int
    where: str
    values: Mapping[str, Any] | None
    error: str | None = None


@dataclass(frozen=True)
class PoolRow:
    """One row of an unlabelled pool: its prompt's `text`, or the `error` that leaves it out."""

    index: int
    id: str
    where: str
    text: str
    error: str | None = None


class PoolStream:
    """The training split as an unlabelled pool: rendered rows, repeated texts left out.

    Iterating reads the source from its start. `duplicates` counts the repeated texts met by the
    last pass. Only eight bytes per row are remembered, to know a text again.

    Args:
        cap: draw so many rows, by `seed` (all of them are read, `cap` are held).

    Raises:
        DataError: while iterating; the source as a whole cannot be read.
    """

    def __init__(self, spec, seed, cap=None, draw_seed=None, least=0):
        self.spec, self.seed, self.cap = spec, seed, cap
        self.duplicates = 0

    def __iter__(self) -> Iterator[PoolRow]:
        rows = self._rendered()
        return rows if self.cap is None else self._drawn(rows, self.cap)

    def pick(self, indices):
        return find_rows(self.spec, self.seed, indices)

    def _rendered(self) -> Iterator[PoolRow]:
        seen: set[int] = set()
        self.duplicates = 0
        keep = self.spec.doc_to_keep
        for row in source(self.spec, self.seed):
            text, error = "", row.error
            if row.values is not None:
                try:
                    if keep and is_left_out(keep, row.values):
                        continue
                    text = row_text(self.spec, row.values, row.where)
                except DataError as problem:
                    error = str(problem).removeprefix(f"{row.where}: ")
            if error is None:
                key = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
                if key in seen:
                    self.duplicates += 1
                    continue
                seen.add(key)
            yield PoolRow(row.index, row_id(self.spec, row.index), row.where, text, error)

    def _drawn(self, rows: Iterator[PoolRow], cap: int) -> Iterator[PoolRow]:
        # The `cap` smallest keys are a uniform draw that needs no count of the rows beforehand.
        kept: list[tuple[int, int, PoolRow]] = []
        for row in rows:
            word = f"{self.seed}:{self.spec.task}:pool:{row.index}"
            key = -int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "big")
            if len(kept) < cap:
                heappush(kept, (key, row.index, row))
            elif key > kept[0][0]:
                heapreplace(kept, (key, row.index, row))
        yield from (row for _, _, row in sorted(kept, key=lambda one: one[1]))


def row_id(spec: TaskSpec, index: int) -> str:
    """The stable name of a row of the training split."""
    return f"{spec.training_split}-{index}"


def find_rows(spec: TaskSpec, seed: int, indices: Iterable[int]) -> dict[int, SourceRow]:
    """The raw rows of those numbers; reading stops at the last of them."""
    wanted = set(indices)
    found: dict[int, SourceRow] = {}
    for row in source(spec, seed):
        if row.index in wanted:
            found[row.index] = row
        if len(found) == len(wanted):
            break
    return found


def source(spec: TaskSpec, seed: int) -> Iterator[SourceRow]:
    """The raw rows of the training split, in the source's order.

    Raises:
        DataError: the source as a whole cannot be read, naming it.
    """
    files = source_files(spec)
    if not files:
        for index, row in enumerate(source_rows(spec, seed)[spec.training_split]):
            yield SourceRow(index, f"{spec.training_split} row {index}", row)
        return
    index = 0
    for path in files:
        shown = redact(path).split("?", 1)[0]
        try:
            for place, values, error in _read(path, spec.dataset_path):
                yield SourceRow(index, f"{shown}, {place}", values, error)
                index += 1
        except (OSError, EOFError, ValueError, ImportError, pa.ArrowException) as problem:
            raise DataError(f"{shown} cannot be read: {redact(str(problem))}") from problem


def source_files(spec: TaskSpec) -> tuple[str, ...]:
    """The training split's files; none for a builder or a hub data set."""
    if spec.dataset_path not in FILE_FORMATS:
        return ()
    files: Any = spec.dataset_kwargs.get("data_files")
    if isinstance(files, Mapping):
        if spec.training_split not in files:
            raise DataError(f"data_files has no {spec.training_split!r} entry")
        files = files[spec.training_split]  # type: ignore[index]
    given = [files] if isinstance(files, str) else [str(file) for file in files or ()]
    return tuple(match for path in given for match in _expand(path))


def source_stamp(spec: TaskSpec) -> list[dict[str, str]]:
    """Size and time or checksum of every file, to notice that the source has changed.

    Raises:
        DataError: a file is missing or cannot be reached.
    """
    stamps: list[dict[str, str]] = []
    for path in source_files(spec):
        try:
            filesystem, name = fsspec.core.url_to_fs(path)
            info = filesystem.info(name)
        except (OSError, ValueError, ImportError) as error:
            shown = redact(path).split("?", 1)[0]
            raise DataError(f"{shown} cannot be read: {redact(str(error))}") from None
        stamps.append({key: str(info[key]) for key in _STAMPS if info.get(key) is not None})
    return stamps


def _expand(path: str) -> list[str]:
    if not any(mark in path.split("://")[-1] for mark in "*["):
        return [path]
    filesystem, pattern = fsspec.core.url_to_fs(path)
    found = sorted(str(name) for name in filesystem.glob(pattern))
    if not found:
        raise DataError(f"{redact(path)}: no file matches")
    return [str(filesystem.unstrip_protocol(name)) for name in found] if "://" in path else found


Raw = tuple[str, Mapping[str, Any] | None, str | None]


def _read(path: str, kind: str) -> Iterator[Raw]:
    opened: Any = fsspec.open(path, "rb", compression="infer")
    with opened as file:
        readers = {"csv": _csv_rows, "parquet": _parquet_rows, "json": _json_rows}
        yield from readers[kind](file)


def _json_rows(file: IO[bytes]) -> Iterator[Raw]:
    number = 0
    for number, line in enumerate(file, 1):
        text = line.strip().removeprefix(b"\xef\xbb\xbf")
        if not text:
            continue
        if number == 1 and text.startswith(b"["):
            yield from _json_list(line + file.read())
            return
        try:
            values = json.loads(text)
        except ValueError as error:
            yield f"line {number}", None, f"not JSON: {error}"
            continue
        if isinstance(values, dict):
            yield f"line {number}", values, None
        else:
            yield f"line {number}", None, f"expected an object, got {type(values).__name__}"


def _json_list(text: bytes) -> Iterator[Raw]:
    values: Any = json.loads(text)
    for number, row in enumerate(values, 1):
        good = isinstance(row, dict)
        yield f"entry {number}", row if good else None, None if good else "expected an object"


def _csv_rows(file: IO[bytes]) -> Iterator[Raw]:
    # Bytes that are no UTF-8 survive as surrogates, so that they are an error of their row only.
    text = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.reader(text)
    header = next(reader, None)
    if header is None:
        return
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield f"line {reader.line_num}", None, f"not CSV: {error}"
            continue
        if not cells:
            continue
        place, error = f"line {reader.line_num}", None
        if len(cells) != len(header):
            error = f"{len(cells)} cells under {len(header)} columns; quote the commas"
        elif any("\udc80" <= char <= "\udcff" for cell in cells for char in cell):
            error = "not UTF-8"
        if error:
            yield place, None, error
        else:
            yield place, dict(zip(header, map(_typed, cells), strict=True)), None


def _typed(cell: str) -> Any:
    """A cell as the value it spells, where that renders as the very same text."""
    if cell in ("True", "False"):
        return cell == "True"
    for kind in (int, float):
        try:
            value = kind(cell)
        except ValueError:
            continue
        if str(value) == cell:
            return value
    return cell or None


def _parquet_rows(file: IO[bytes]) -> Iterator[Raw]:
    number = 0
    for batch in pq.ParquetFile(file).iter_batches(batch_size=BATCH):
        for row in batch.to_pylist():
            number += 1
            yield f"row {number}", row, None
