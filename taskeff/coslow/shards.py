"""A pool in shards: the unit in which confidence is scored, published and resumed.

A shard is so many rows of one data set in the source's order, bad ones included, with its prompts
as token ids. Its part file is named by its number and by a digest of what it holds, so scoring it
twice writes the same file, and a source that changed shares the parts that did not. Which rows
stand in one batch never depends on who scores them: a disturbed run gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from taskeff.coslow.engines import ConfidenceEngine, Scored
from taskeff.errors import DataError, StorageError, TaskeffError
from taskeff.storage import Store
from taskeff.tasks.prompts import Prompter
from taskeff.tasks.rows import PoolRow, PoolStream

MOST_PROBLEMS = 20  # bad rows quoted in a summary; all of them are in the part files
_ROW_FAULTS = (TaskeffError, ValueError)


@dataclass(frozen=True)
class Shard:
    """Rows of one data set on their way to an engine; a flat record that any row store can hold.

    Attributes:
        dataset: name of the data set.
        number: of the shard, from 0.
        last: whether the pool ends here; `duplicates` then counts the whole pool's.
        indices: int64 [rows], numbers of the rows in their source.
        wheres, errors: file and line of each row; what is wrong with it, empty if nothing is.
        lengths: int64 [rows], tokens of each prompt; 0 for a bad row.
        tokens: int32 [sum of lengths] as bytes.
    """

    dataset: str
    number: int
    last: bool
    duplicates: int
    indices: list[int]
    wheres: list[str]
    errors: list[str]
    lengths: list[int]
    tokens: bytes
    stop_ids: list[int]
    max_new_tokens: int

    @classmethod
    def nothing(cls, dataset: str) -> Shard:
        """A shard without rows: what stands in for a pool that cannot be read."""
        return cls(dataset, 0, True, 0, [], [], [], [], b"", [], 1)

    def to_record(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Shard:
        """From plain values, or the arrays that they became on the way."""
        return cls(
            dataset=str(record["dataset"]),
            number=int(record["number"]),
            last=bool(record["last"]),
            duplicates=int(record["duplicates"]),
            indices=[int(index) for index in record["indices"]],
            wheres=[str(where) for where in record["wheres"]],
            errors=[str(error) for error in record["errors"]],
            lengths=[int(length) for length in record["lengths"]],
            tokens=bytes(record["tokens"]),
            stop_ids=[int(token) for token in record["stop_ids"]],
            max_new_tokens=int(record["max_new_tokens"]),
        )

    @property
    def part(self) -> str:
        """Name of the file its scores are published in."""
        sha = sha256(self.tokens)
        sha.update(repr((self.indices, self.lengths, self.errors)).encode())
        return f"part-{self.number:06d}-{sha.hexdigest()[:12]}.parquet"

    def prompts(self) -> list[list[int]]:
        """Token ids of the good rows, in order."""
        flat = np.frombuffer(self.tokens, dtype=np.int32)
        ends = np.cumsum(self.lengths)
        return [
            flat[end - length : end].tolist()
            for end, length in zip(ends, self.lengths, strict=True)
            if length
        ]


def read_shards(
    pool: PoolStream, prompter: Prompter, *, rows_per_shard: int, max_new_tokens: int
) -> Iterator[Shard]:
    """The pool's shards; the last one is marked, and is empty only if the pool is.

    Raises:
        DataError: the source as a whole cannot be read.
    """
    rows = iter(pool)
    stop_ids = list(prompter.stop_ids())
    number, held = 0, list(islice(rows, rows_per_shard))
    while True:
        following = list(islice(rows, rows_per_shard))
        last = not following
        tokens, errors = _tokenised(held, prompter)
        yield Shard(
            dataset=pool.spec.task,
            number=number,
            last=last,
            duplicates=pool.duplicates if last else 0,
            indices=[row.index for row in held],
            wheres=[row.where for row in held],
            errors=errors,
            lengths=[len(ids) for ids in tokens],
            tokens=np.array([t for ids in tokens for t in ids], dtype=np.int32).tobytes(),
            stop_ids=stop_ids,
            max_new_tokens=max_new_tokens,
        )
        if last:
            return
        number, held = number + 1, following


def _tokenised(
    rows: Sequence[PoolRow], prompter: Prompter
) -> tuple[list[tuple[int, ...]], list[str]]:
    tokens: list[tuple[int, ...]] = []
    errors: list[str] = []
    for row in rows:
        ids: tuple[int, ...] = ()
        error = row.error or ""
        if not error:
            try:
                ids = prompter.prompt_ids(row.text)
            except TaskeffError as problem:
                error = str(problem)
            else:
                error = "" if ids else "the prompt has no tokens"
        tokens.append(ids)
        errors.append(error)
    return tokens, errors


def score_shard(engine: ConfidenceEngine, shard: Shard) -> pa.Table:
    """The shard's confidences, a row for each of its rows, bad ones with their reason.

    Returns:
        A table of index (int64), confidence (float64 or null), reason and where (text, null
        beside a confidence).

    Raises:
        DataError: the engine answered another number of rows.
    """
    prompts = shard.prompts()
    try:
        found = _asked(engine, prompts, shard) if prompts else []
    except _ROW_FAULTS:
        found = [_alone(engine, prompt, shard) for prompt in prompts]
    return part_table(shard, found)


def part_table(shard: Shard, found: Iterable[Scored]) -> pa.Table:
    """The part file of a shard whose good rows were `found`, in their order."""
    good = iter(found)
    scored = [Scored(None, e) if e else next(good) for e in shard.errors]
    return pa.table(
        {
            "index": pa.array(shard.indices, pa.int64()),
            "confidence": pa.array([one.value for one in scored], pa.float64()),
            "reason": pa.array([one.reason for one in scored], pa.string()),
            "where": pa.array(
                [
                    where if one.value is None else None
                    for where, one in zip(shard.wheres, scored, strict=True)
                ],
                pa.string(),
            ),
        }
    )


def _asked(engine: ConfidenceEngine, prompts: list[list[int]], shard: Shard) -> list[Scored]:
    found = engine.score(prompts, stop_ids=shard.stop_ids, max_new_tokens=shard.max_new_tokens)
    if len(found) != len(prompts):
        raise RuntimeError(f"the engine gave {len(found)} answers for {len(prompts)} prompts")
    return [
        one if one.value is None or np.isfinite(one.value) else Scored(None, "not a number")
        for one in found
    ]


def _alone(engine: ConfidenceEngine, prompt: list[int], shard: Shard) -> Scored:
    try:
        return _asked(engine, [prompt], shard)[0]
    except _ROW_FAULTS as error:
        return Scored(None, str(error) or type(error).__name__)


def publish_shard(engine: ConfidenceEngine, shard: Shard, folder: Store) -> dict[str, Any]:
    """Score the shard unless its part is there, publish it, and say how it went.

    Returns:
        dataset, part, last, duplicates, rows, unscored, problems (the first bad rows, as text).
    """
    table = _published(folder, shard.part)
    if table is None:
        table = score_shard(engine, shard)
        folder.write_table(table, shard.part)
    return shard_summary(shard, table)


def _published(folder: Store, part: str) -> pa.Table | None:
    """The part file, None where it is missing or cannot be read."""
    if not folder.exists(part):
        return None
    try:
        return folder.read_table(part)
    except (StorageError, pa.ArrowException):
        return None


def shard_summary(shard: Shard, table: pa.Table) -> dict[str, Any]:
    """What the driver keeps of a published shard."""
    bad = [row for row in table.to_pylist() if row["confidence"] is None]
    return {
        "dataset": shard.dataset,
        "number": shard.number,
        "part": shard.part,
        "last": shard.last,
        "duplicates": shard.duplicates,
        "rows": len(table),
        "unscored": len(bad),
        "problems": [_problem(row) for row in bad[:MOST_PROBLEMS]],
    }


def _problem(row: dict[str, Any]) -> str:
    return f"{row['where']}: {row['reason']}"


def read_parts(folder: Store, parts: Sequence[str]) -> tuple[list[int], list[float | None]]:
    """(row numbers, confidences) of the scored pool, in the source's order.

    Raises:
        DataError: a row is there twice.
    """
    indices: list[int] = []
    values: list[float | None] = []
    for part in parts:
        table = folder.read_table(part)
        indices += table["index"].to_pylist()
        values += table["confidence"].to_pylist()
    if len(set(indices)) != len(indices):
        raise DataError(f"{folder.path()}: a row was scored twice; remove the folder and run again")
    return indices, values
