"""A pool in shards: the unit in which confidence is scored, published and resumed.

A shard is so many rows of one data set in the pool's order, bad ones included, with its prompts as
token ids. Its part file is named by its number and by a digest of what it holds and is scored with,
so scoring it twice writes the same file, and a source that changed shares the parts that did not.
Which rows stand in one batch never depends on who scores them: a disturbed run gives the same
numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taskeff.coslow.confidence import Confidence
from taskeff.coslow.engines import ConfidenceEngine
from taskeff.coslow.pool import Rows
from taskeff.errors import DataError, StorageError, TaskeffError
from taskeff.storage import Store
from taskeff.tasks.prompts import Prompter
from taskeff.tasks.rows import PoolRow

PROBLEMS = 20  # bad rows quoted in selection.json; all of them are in the part files
_ROW_FAULTS = (TaskeffError, ValueError)


@dataclass(frozen=True)
class Shard:
    """Rows of one data set on their way to an engine.

    Attributes:
        number: of the shard, from 0.
        made_with: hash of what the data set is scored with.
        indices: int64 [rows], numbers of the rows in their source.
        wheres, errors: file and line of each row; what is wrong with it, empty if nothing is.
        lengths: int64 [rows], tokens of each prompt; 0 for a bad row.
        tokens: int32 [sum of lengths] as bytes.
        escaped: rows whose text held the model's own markers.
    """

    number: int
    made_with: str
    indices: list[int]
    wheres: list[str]
    errors: list[str]
    lengths: list[int]
    tokens: bytes
    stop_ids: list[int]
    max_new_tokens: int
    escaped: int = 0

    @property
    def part(self) -> str:
        """Name of the file its scores are published in."""
        sha = sha256(self.tokens)
        sha.update(repr((self.made_with, self.indices, self.lengths, self.errors)).encode())
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
    rows: Rows, prompter: Prompter, *, rows_per_shard: int, max_new_tokens: int, made_with: str
) -> Iterator[Shard]:
    """The pool's shards, in order; none if it is empty.

    Raises:
        DataError: the source as a whole cannot be read.
    """
    left = iter(rows)
    stop_ids = list(prompter.stop_ids())
    number = 0
    while held := list(islice(left, rows_per_shard)):
        tokens, errors = _tokenised(held, prompter)
        yield Shard(
            number=number,
            made_with=made_with,
            indices=[row.index for row in held],
            wheres=[row.where for row in held],
            errors=errors,
            lengths=[len(ids) for ids in tokens],
            tokens=np.array([t for ids in tokens for t in ids], dtype=np.int32).tobytes(),
            stop_ids=stop_ids,
            max_new_tokens=max_new_tokens,
            escaped=sum(prompter.escapes(row.text) for row in held),
        )
        number += 1


def _tokenised(
    rows: Sequence[PoolRow], prompter: Prompter
) -> tuple[list[tuple[int, ...]], list[str]]:
    tokens: list[tuple[int, ...]] = []
    errors: list[str] = []
    for row in rows:
        ids: tuple[int, ...] = ()
        error = row.error or ""
        try:
            ids = () if error else prompter.prompt_ids(row.text)
        except TaskeffError as problem:
            error = str(problem)
        error = error or ("" if ids else "the prompt has no tokens")
        tokens.append(ids)
        errors.append(error)
    return tokens, errors


def score_shard(engine: ConfidenceEngine, shard: Shard) -> pa.Table:
    """The shard's confidences, a row for each of its rows, bad ones with their reason.

    Returns:
        A table of index (int64), confidence (float64 or null), reason and where (text, null
        beside a confidence).

    Raises:
        RuntimeError: the engine answered another number of rows.
    """
    prompts = shard.prompts()
    try:
        found = _asked(engine, prompts, shard) if prompts else []
    except _ROW_FAULTS:
        found = [_alone(engine, prompt, shard) for prompt in prompts]
    return part_table(shard, found)


def part_table(shard: Shard, found: Iterable[Confidence]) -> pa.Table:
    """The part file of a shard whose good rows were `found`, in their order."""
    good = iter(found)
    scored = [Confidence(None, e) if e else next(good) for e in shard.errors]
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


def _asked(engine: ConfidenceEngine, prompts: list[list[int]], shard: Shard) -> list[Confidence]:
    found = engine.score(prompts, stop_ids=shard.stop_ids, max_new_tokens=shard.max_new_tokens)
    if len(found) != len(prompts):
        raise RuntimeError(f"the engine gave {len(found)} answers for {len(prompts)} prompts")
    return [
        one if one.value is None or np.isfinite(one.value) else Confidence(None, "not a number")
        for one in found
    ]


def _alone(engine: ConfidenceEngine, prompt: list[int], shard: Shard) -> Confidence:
    try:
        return _asked(engine, [prompt], shard)[0]
    except _ROW_FAULTS as error:
        return Confidence(None, str(error) or type(error).__name__)


def publish_shard(engine: ConfidenceEngine, shard: Shard, folder: Store) -> None:
    """Score the shard and publish it, unless its part is there."""
    if read_part(folder, shard.part) is None:
        folder.write_table(score_shard(engine, shard), shard.part)


def read_part(folder: Store, part: str) -> pa.Table | None:
    """The part file, None where it is missing or cannot be read."""
    try:
        return folder.read_table(part)
    except (StorageError, pa.ArrowException):
        return None


class PoolScores(NamedTuple):
    """A scored pool, in its order: numbers of the rows in their source, confidences, and the first
    rows without one, each with its reason."""

    numbers: list[int]
    confidences: list[float | None]
    problems: list[str]


def read_parts(folder: Store, parts: Sequence[str]) -> PoolScores:
    """What the part files say.

    Raises:
        DataError: a row is there twice.
    """
    indices: list[int] = []
    values: list[float | None] = []
    problems: list[str] = []
    for part in parts:
        table = folder.read_table(part)
        indices += table["index"].to_pylist()
        values += table["confidence"].to_pylist()
        bad = table.filter(pc.field("confidence").is_null()).slice(0, PROBLEMS - len(problems))
        problems += [f"{row['where']}: {row['reason']}" for row in bad.to_pylist()]
    if len(set(indices)) != len(indices):
        raise DataError(f"{folder.path()}: a row was scored twice; remove the folder and run again")
    return PoolScores(indices, values, problems)
