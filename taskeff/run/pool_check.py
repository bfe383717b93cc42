"""A task file before anything is scored: what `select` would read of it, no label asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from taskeff.config import SHARD_ROWS, CosLowConfig, ModelConfig
from taskeff.coslow.confidence import prompt_room, too_long
from taskeff.coslow.pool import SpecPool
from taskeff.coslow.shards import Shard, read_shards
from taskeff.errors import DataError
from taskeff.models import load_architecture, load_tokenizer
from taskeff.tasks.account import (
    HELD_OUT,
    NOT_KEPT,
    REPEATED,
    SHOWN,
    TOO_LONG,
    UNREADABLE,
    Account,
)
from taskeff.tasks.spec import TaskSpec, load_spec


@dataclass
class PoolCheck:
    """Rows of a pool, those that can be used, and why the others cannot.

    Attributes:
        rows: read so far.
        left_out: why -> how many.
        longest: tokens of the longest prompt.
        example: one prompt as the model reads it.
        problems: the first rows that cannot be used, each with its reason.
        escaped: rows that hold the model's own markers.
    """

    spec: TaskSpec
    rows: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    longest: int = 0
    example: str = ""
    problems: list[str] = field(default_factory=list)
    escaped: int = 0

    @property
    def account(self) -> Account:
        """What becomes of the rows."""
        return Account(self.rows, self.left_out, self.problems, self.escaped)

    def lines(self) -> Iterator[str]:
        """For a person to read."""
        yield from self.account.lines(self.spec.label)
        yield f"longest prompt {self.longest} tokens"


def check_pool(task: str, model: ModelConfig, settings: CosLowConfig | None = None) -> PoolCheck:
    """Read a task's whole pool as `select` would, up to the model.

    Raises:
        TaskeffError: a bad task file or model, choices that cannot be answers, or fewer rows than
            are to be labelled.
    """
    settings = settings or CosLowConfig()
    pool = SpecPool(load_spec(task), 0, settings, labelled=False)
    tokenizer, architecture = load_tokenizer(model), load_architecture(model)
    rows, prompter = pool.rows(), pool.about.prompter(tokenizer)
    new_tokens = pool.about.new_tokens(settings)
    room = prompt_room(architecture, new_tokens)
    found = PoolCheck(pool.spec)
    for shard in read_shards(
        rows, prompter, rows_per_shard=SHARD_ROWS, max_new_tokens=new_tokens, made_with=""
    ):
        _note(found, shard, room)
        if not found.example and (ids := next(iter(shard.prompts()), None)):
            found.example = str(tokenizer.decode(ids, skip_special_tokens=False))
    beside = {REPEATED: rows.duplicates, NOT_KEPT: rows.left_out, HELD_OUT: rows.held_out}
    found.left_out.update(beside)
    found.rows += sum(beside.values())
    if pool.about.choices:
        prompter.choice_ids(pool.about.choices)
    if found.account.used < settings.n_examples:
        raise DataError("\n  ".join([*found.lines(), f"{settings.n_examples} are to be labelled"]))
    return found


def _note(found: PoolCheck, shard: Shard, room: int | None) -> None:
    found.rows += len(shard.indices)
    found.escaped += shard.escaped
    for where, error, length in zip(shard.wheres, shard.errors, shard.lengths, strict=True):
        found.longest = max(found.longest, length)
        if error:
            found.left_out[UNREADABLE] += 1
        elif room is not None and length > room:
            found.left_out[TOO_LONG] += 1
            error = too_long(length, room)
        if error and len(found.problems) < SHOWN:
            found.problems.append(f"{where}: {error}")
