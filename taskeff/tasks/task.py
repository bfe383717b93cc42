"""A task: its rows rendered, without repeats, split; nested budget subsets and the pool's draw."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import tempfile
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from taskeff.errors import DataError, TaskeffError
from taskeff.storage import Store, canonical_json
from taskeff.tasks.account import NOT_KEPT, REPEATED
from taskeff.tasks.examples import (
    BATCH,
    SCHEMA,
    Example,
    Examples,
    PublishedRows,
    RowFile,
    row_id,
    row_number,
    rows_at,
)
from taskeff.tasks.rows import cuts, draw, first_of_each, render_row, shuffle_rows, text_key
from taskeff.tasks.source import row_of, source_rows
from taskeff.tasks.spec import TaskSpec, load_spec, read_specs

__all__ = ["Example", "Task", "TaskSpec", "load_spec", "load_task", "read_specs"]

HARDLY_MORE = 1.1
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """A task with its splits; `train` is also the unlabelled pool.

    Attributes:
        notes: what to know of its rows, a sentence each.
        left_out: why rows that were read are in none of the splits -> how many.
    """

    spec: TaskSpec
    train: Sequence[Example]
    validation: Sequence[Example]
    test: Sequence[Example]
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def used(self) -> int:
        """Rows of all splits."""
        return len(self.train) + len(self.validation) + len(self.test)

    @property
    def name(self) -> str:
        """The task's name."""
        return self.spec.task

    @cached_property
    def data_hash(self) -> str:
        """A digest of every rendered row and of the settings that score it."""
        spec = self.spec
        settings = [spec.description, spec.doc_to_choice, spec.metric, spec.max_new_tokens]
        # That of the canonical JSON of [rows, *settings], which would not fit the memory.
        before, after = canonical_json([0, *settings]).split("0", 1)
        sha = hashlib.sha256(before.encode())
        for piece in _json_of((self.train, self.validation, self.test)):
            sha.update(piece.encode())
        sha.update(after.encode())
        return sha.hexdigest()[:12]

    def budgets(self, wanted: Sequence[int]) -> tuple[int, ...]:
        """The budgets of `wanted` that the training rows allow, and all rows in place of the rest.

        All rows are no budget of their own where they are hardly more than the one before.
        """
        rows = len(self.train)
        within = tuple(budget for budget in wanted if budget <= rows)
        if len(within) == len(wanted) or (within and rows < HARDLY_MORE * within[-1]):
            return within
        return (*within, rows)

    def subset_rows(self, budget: int, seed: int) -> np.ndarray:
        """int64 [budget]: places in `train`, the first in the order of `seed`: budgets are nested.

        Raises:
            DataError: the task has fewer training rows.
        """
        if budget > len(self.train):
            raise DataError(
                f"{self.spec.label}: budget {budget} is above its {len(self.train)} training rows; "
                "lower the budget or add rows"
            )
        order = np.arange(len(self.train))
        shuffle_rows(self.name, seed, order, "subset")
        return order[:budget]

    def subset(self, budget: int, seed: int) -> list[Example]:
        """The training rows at `subset_rows`."""
        return list(rows_at(self.train, self.subset_rows(budget, seed)))

    def n_validation(self, budget: int) -> int:
        """Validation rows for one budget: at most a fifth of it, at least one."""
        return min(len(self.validation), max(1, budget // 5))

    def validation_subset(self, budget: int) -> list[Example]:
        """Validation rows for one budget."""
        return list(self.validation[: self.n_validation(budget)])

    def test_subset(self, cap: int) -> list[Example]:
        """At most `cap` test rows."""
        return list(self.test[:cap])

    def pool_rows(self, cap: int | None, seed: int) -> np.ndarray:
        """int64: places in `train` of a seeded draw of `cap`, without one of all rows."""
        if cap is None:
            numbers = np.fromiter(
                (row_number(one.id) for one in self.train), np.int64, len(self.train)
            )
            return np.argsort(numbers, kind="stable")
        return draw(np.arange(len(self.train)), cap, self.name, seed)

    def publish(self, store: Store) -> Task:
        """The task with its rows in `store`, written unless they are there.

        Pickled it is the task file and where the rows lie; who unpickles it fetches them when the
        first is asked for.

        Raises:
            StorageError: the storage cannot be written.
        """
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        parts = ("tasks", f"task={self.name}", f"{self.data_hash}.parquet")
        if not store.exists(*parts):
            with tempfile.NamedTemporaryFile(prefix="taskeff-", suffix=".parquet") as file:
                _write(splits, file.name)
                store.write_file(file.name, *parts)
        rows, first = PublishedRows(store, parts), 0
        published: dict[str, Examples] = {}
        for name, split in splits.items():
            if not isinstance(split, Examples):
                split = Examples(rows, range(first, first + len(split)))
            published[name] = split.published(rows, first)
            first += len(split)
        moved = replace(self, **published)
        moved.__dict__["data_hash"] = self.data_hash
        return moved


def load_task(spec: TaskSpec, seed: int) -> Task:
    """Rows rendered, deduplicated by text, and split.

    Missing validation and test splits are cut from one shuffle of the training rows, seeded by
    `seed` and the task's name; splits never share a text. The rows lie in a temporary file.

    Raises:
        DataError: naming the task, the row and the field.
    """
    loading = _Loading(spec, seed)
    try:
        if spec.doc_to_target is None:
            raise DataError(
                "doc_to_target is missing, and to train takes labels: say which column is the "
                "answer, or begin with `taskeff select`, which takes none"
            )
        file = RowFile(loading.rows())
    except TaskeffError as error:
        raise DataError(f"{spec.label}: {error}") from None
    # Of a text that several splits have, the test keeps the first, then the validation.
    kept = loading.kept([spec.test_split, spec.validation_split, spec.training_split])
    test, validation, train = kept
    shuffle_rows(spec.task, seed, train)
    total = len(train)
    to_test, to_validation = cuts(spec, total)
    if not spec.test_split:
        test, train = train[:to_test], train[to_test:]
    if not spec.validation_split:
        validation, train = train[:to_validation], train[to_validation:]
    for what, rows in (("training", train), ("validation", validation), ("test", test)):
        if not len(rows):
            raise DataError(
                f"{spec.label}: no {what} rows ({total} distinct ones before splitting); "
                f"add rows or change test_size and validation_size"
            )
    notes = tuple(loading.contradictions(file))
    for note in notes:
        log.warning(note)
    splits = (Examples(file, rows) for rows in (train, validation, test))
    repeated = len(loading.texts) - sum(map(len, kept))
    left_out = {REPEATED: repeated, NOT_KEPT: loading.not_kept}
    return Task(spec, *splits, notes=notes, left_out=left_out)


class _Loading:
    """What is remembered of the rows on their way to the file: sixteen bytes of each."""

    def __init__(self, spec: TaskSpec, seed: int):
        self.spec, self.seed = spec, seed
        self.texts, self.targets = array("Q"), array("Q")
        self.not_kept = 0
        self.ends: dict[str, tuple[int, int]] = {}
        """Split -> its rows' range in the file."""

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """Every split's rows as (id, text, target)."""
        spec = self.spec
        for split in dict.fromkeys(spec.splits):
            start = len(self.texts)
            for row in source_rows(spec, split, self.seed):
                if rendered := render_row(spec, row):
                    text, target = rendered
                    self.texts.append(text_key(text))
                    self.targets.append(text_key(target))
                    yield row_id(split, row.index), text, target
                else:
                    self.not_kept += 1
            self.ends[split] = start, len(self.texts)
            if start == len(self.texts):
                kept = " that doc_to_keep keeps" if spec.doc_to_keep else ""
                raise DataError(f"split {split!r} has no rows{kept}; add rows")

    def kept(self, splits: Sequence[str | None]) -> list[np.ndarray]:
        """int64 [rows] of each split: its places in the file, without texts seen before."""
        texts = np.array(self.texts)
        found = [np.arange(*self.ends[split]) if split else np.arange(0) for split in splits]
        order = np.concatenate(found)
        is_first = np.zeros(len(order), bool)
        is_first[first_of_each(texts[order])] = True
        ends = np.cumsum([len(rows) for rows in found])[:-1]
        parts = zip(np.split(order, ends), np.split(is_first, ends), strict=True)
        return [rows[distinct] for rows, distinct in parts]

    def contradictions(self, file: RowFile) -> Iterator[str]:
        """A note where one text has different answers: how often, and the first two rows."""
        texts, targets = np.array(self.texts), np.array(self.targets)
        _, first, inverse = np.unique(texts, return_index=True, return_inverse=True)
        other = np.flatnonzero(targets != targets[first[inverse]])
        if len(other):
            pair = file[int(first[inverse[other[0]]])], file[int(other[0])]
            said = (f"{row_of(self.spec, one.id)} says {one.target!r}" for one in pair)
            yield (
                f"{self.spec.label}: {len(other)} rows repeat a text with another answer and are "
                f"left out: {', '.join(said)}"
            )


def _json_of(splits: Sequence[Sequence[Example]]) -> Iterator[str]:
    """Pieces of the canonical JSON of all rows, two levels deep in a list."""

    def listed(items: Iterator[Iterator[str]], level: int) -> Iterator[str]:
        gap = "\n" + " " * (level + 1)
        mark = "["
        for item in items:
            yield mark + gap
            yield from item
            mark = ","
        yield "[]" if mark == "[" else "\n" + " " * level + "]"

    def fields(example: Example) -> Iterator[str]:
        values = (example.id, example.text, example.target)
        return listed((iter([json.dumps(v, ensure_ascii=False)]) for v in values), 3)

    return listed((listed(map(fields, split), 2) for split in splits), 1)


def _write(splits: dict[str, Sequence[Example]], path: str) -> None:
    """Parquet of split, id, text and target, a group of rows at a time."""
    schema = SCHEMA.insert(0, pa.field("split", pa.string()))
    with pq.ParquetWriter(path, schema) as writer:
        for name, split in splits.items():
            rows = iter(split)
            while batch := [(name, e.id, e.text, e.target) for e in itertools.islice(rows, BATCH)]:
                columns = [pa.array(c, pa.string()) for c in zip(*batch, strict=True)]
                writer.write_batch(pa.record_batch(columns, schema=schema))
