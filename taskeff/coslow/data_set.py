"""A data set on its way to CoS-Low, and its pool in shards: what is scored, what is still to be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from taskeff.config import CosLowConfig
from taskeff.coslow.handoff import Form
from taskeff.coslow.pool import Pool
from taskeff.coslow.selection import SELECTION, PoolFacts, Selection
from taskeff.coslow.shards import PoolScores, Shard, read_parts, read_shards
from taskeff.errors import DataError, StorageError
from taskeff.schema import Artefact, Text, checked
from taskeff.storage import Store
from taskeff.tasks.account import HELD_OUT, NOT_KEPT, REPEATED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

POOL = "pool.json"
POOL_FACTS = tuple(PoolFacts.model_fields)
"""What `pool.json` and `selection.json` say of the rows that were read."""


class PoolFile(PoolFacts):
    """What `pool.json` holds."""

    made_with: Text
    stamp: list[dict[str, Text]]
    parts: list[Text]


_PUBLISHED: dict[str, type[Artefact]] = {POOL: PoolFile, SELECTION: Selection}


@dataclass(frozen=True)
class DataSet:
    """A data set on its way; pickles to what is needed to read it, never to its rows.

    Attributes:
        folder: of its artefacts.
        made_with: `signal_hash`: what a pool was scored with.
        fingerprint: see `taskeff.coslow.fingerprint`.
        shard_rows: rows scored, published and resumed together.
        labels: a filled hand-off file; default the one in `folder`.
        control: take the gradients of as many random examples too.
        form: what the files to label are written for.
    """

    name: str
    pool: Pool
    folder: Store
    settings: CosLowConfig
    made_with: str
    fingerprint: Mapping[str, Any]
    shard_rows: int
    labels: str | None = None
    control: bool = False
    form: Form = "jsonl"


def published(folder: Store, name: str) -> dict[str, Any] | None:
    """A step's file, None where it is missing or was cut off.

    Raises:
        DataError: it holds something else than the step writes; names file and field.
    """
    try:
        found = folder.read_json(name)
    except StorageError:
        return None
    return checked(found, _PUBLISHED[name], folder.path(name))


def shards_to_score(data: DataSet, tokenizer: PreTrainedTokenizerBase) -> Iterator[Shard]:
    """The pool's shards; after the last one `pool.json` says which parts make the whole.

    Raises:
        DataError: the source as a whole cannot be read, or has too few rows that can be used (where
            one shard holds them all, before it is given).
    """
    about, rows, stamp = data.pool.about, data.pool.rows(), data.pool.stamp()
    parts: list[str] = []
    read = usable = escaped = 0
    problem = ""
    held: Shard | None = None
    for shard in read_shards(
        rows,
        about.prompter(tokenizer),
        rows_per_shard=data.shard_rows,
        max_new_tokens=about.new_tokens(data.settings),
        made_with=data.made_with,
    ):
        if held is not None:
            yield held
        held = shard
        parts.append(shard.part)
        read += len(shard.indices)
        usable += shard.errors.count("")
        escaped += shard.escaped
        bad = (f"{w}: {e}" for w, e in zip(shard.wheres, shard.errors, strict=True) if e)
        problem = problem or next(bad, "")
    if held is None or usable < data.settings.n_examples:
        lost = {REPEATED: rows.duplicates, NOT_KEPT: rows.left_out, HELD_OUT: rows.held_out}
        told = ", ".join(f"{n} {reason}" for reason, n in lost.items() if n)
        why = f" ({problem or told})" if problem or told else "; add rows"
        raise DataError(
            f"{data.name}: the pool has {usable} rows that can be used, fewer than the "
            f"{data.settings.n_examples} to label{why}"
        )
    yield held
    found = {
        "made_with": data.made_with,
        "stamp": stamp,
        "parts": parts,
        "rows_in": read + rows.duplicates + rows.left_out + rows.held_out + rows.beyond_cap,
        "duplicates": rows.duplicates,
        "left_out": rows.left_out,
        "held_out": rows.held_out,
        "beyond_cap": rows.beyond_cap,
        "escaped": escaped,
        "note": rows.note,
    }
    data.folder.write_json(found, POOL)


def scored_pool(data: DataSet) -> dict[str, Any] | None:
    """`pool.json`, if it is of the source as it is now and all its parts are there."""
    found = published(data.folder, POOL)
    if found is None or found["made_with"] != data.made_with or found["stamp"] != data.pool.stamp():
        return None
    return found if set(found["parts"]) <= set(data.folder.names()) else None


def read_confidences(folder: Store) -> PoolScores:
    """The confidences of a scored pool."""
    return read_parts(folder, (published(folder, POOL) or {"parts": []})["parts"])
