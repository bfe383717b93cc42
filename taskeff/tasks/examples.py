"""A task's rows outside memory: an Arrow file that is mapped and read row by row."""

from __future__ import annotations

import itertools
import mmap
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from taskeff.errors import StorageError

if TYPE_CHECKING:
    from taskeff.storage import Store

BATCH = 1024  # rows of a record batch; all but the last have so many
MAPPED = 128  # rows in any order that stay mapped: the system maps 64 KB around each
SCHEMA = pa.schema([(name, pa.string()) for name in ("id", "text", "target")])


@dataclass(frozen=True)
class Example:
    """One row as rendered text; `target` is None where it is not labelled."""

    id: str
    text: str
    target: str | None = None


def row_id(split: str, number: int) -> str:
    """The stable name of a split's row; `number` is the row's in its source."""
    return f"{split}-{number}"


def row_number(id_: str) -> int:
    """What `row_id` was made with; 0 for another name."""
    number = id_.rpartition("-")[2]
    return int(number) if number.isdigit() else 0


class RowFile:
    """Rows in a temporary file without a name: it is gone with the process, however that ends."""

    def __init__(self, rows: Iterable[Sequence[str | None]]):
        """Writes `rows`, each (id, text, target).

        Raises:
            StorageError: the temporary folder is full.
        """
        try:
            with tempfile.TemporaryFile(prefix="taskeff-") as file:
                with pa.ipc.new_file(file, SCHEMA) as writer:
                    for batch in _batches(rows):
                        columns = [pa.array(c, pa.string()) for c in zip(*batch, strict=True)]
                        writer.write_batch(pa.record_batch(columns, schema=SCHEMA))
                file.flush()
                self._mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise StorageError(
                f"{tempfile.gettempdir()}: {error}; set TMPDIR to a folder with room for the rows"
            ) from None
        reader = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(self._mapped)))
        self._batches = [reader.get_batch(i).columns for i in range(reader.num_record_batches)]

    def __getitem__(self, row: int) -> Example:
        batch, place = divmod(row, BATCH)
        return Example(*(column[place].as_py() for column in self._batches[batch]))

    @property
    def file(self) -> RowFile:
        """Itself; what is published has its rows in one of these too."""
        return self

    def forget(self) -> None:
        """Give back the memory of what was read; it is read from the file again."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._mapped.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True)
class PublishedRows:
    """A Parquet file of rows in a storage, fetched when a row is first asked for."""

    store: Store
    parts: tuple[str, ...]

    @cached_property
    def file(self) -> RowFile:
        """The rows, in a file of this machine's.

        Raises:
            StorageError: they cannot be fetched.
        """

        def rows() -> Iterator[Sequence[str]]:
            with self.store.open(*self.parts) as file:
                for batch in pq.ParquetFile(file).iter_batches(BATCH, columns=SCHEMA.names):
                    yield from zip(*(c.to_pylist() for c in batch.columns), strict=True)

        return RowFile(rows())

    def __reduce__(self) -> Any:
        return PublishedRows, (self.store, self.parts)


class Examples(Sequence[Example]):
    """Rows of a file in an order of their own; a slice is another order of the same file.

    Pickled they are a tuple, or, once published, where they lie.
    """

    def __init__(
        self,
        rows: RowFile | PublishedRows,
        order: np.ndarray | range,
        home: tuple[PublishedRows, range] | None = None,
    ):
        """`order`: the rows' numbers in the file, int64; `home`: where they are published."""
        self._rows, self._order, self._home = rows, order, home

    def published(self, rows: PublishedRows, first: int) -> Examples:
        """These, to be pickled as rows `first` and following of what is published."""
        return Examples(self._rows, self._order, (rows, range(first, first + len(self))))

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Examples: ...
    def __getitem__(self, index: int | slice) -> Example | Examples:
        if isinstance(index, slice):
            home = self._home and (self._home[0], self._home[1][index])
            return Examples(self._rows, self._order[index], home)
        return self._rows.file[int(self._order[index])]

    def __iter__(self) -> Iterator[Example]:
        file = self._rows.file
        for start in range(0, len(self), MAPPED):
            yield from (file[int(row)] for row in self._order[start : start + MAPPED])
            file.forget()

    def at(self, places: np.ndarray) -> Examples:
        """The rows at these places, in their order."""
        return Examples(self._rows, np.asarray(self._order)[places])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Examples | tuple | list):
            return NotImplemented
        return len(self) == len(other) and all(map(lambda a, b: a == b, self, other))

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> Any:
        return (Examples, self._home) if self._home else (tuple, (list(self),))


def rows_at(rows: Sequence[Example], places: np.ndarray) -> Iterable[Example]:
    """The rows at these places, one at a time."""
    return rows.at(places) if isinstance(rows, Examples) else (rows[int(p)] for p in places)


def _batches(rows: Iterable[Any]) -> Iterator[list[Any]]:
    remaining = iter(rows)
    while batch := list(itertools.islice(remaining, BATCH)):
        yield batch
