"""Rows of a task rendered one at a time; a pool's rows in its one seeded order.

A row that cannot be read or rendered is an error on that row: one bad line among millions costs
that line.
"""

from __future__ import annotations

import ast
import random
from array import array
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from taskeff.errors import DataError, cell
from taskeff.tasks.examples import row_id
from taskeff.tasks.metrics import FIRST_LINE, choice_of
from taskeff.tasks.readers import SourceRow
from taskeff.tasks.source import source_rows
from taskeff.tasks.spec import TaskSpec
from taskeff.tasks.templates import render


@dataclass(frozen=True)
class PoolRow:
    """One row of an unlabelled pool: its prompt's `text`, or the `error` that leaves it out.

    Attributes:
        index: of the row in the training split, from 0.
        id: of the example that it is in `taskeff.tasks.task.load_task`.
        where: file and line, for messages.
    """

    index: int
    id: str
    where: str
    text: str
    error: str | None = None


class PoolStream:
    """The training split as an unlabelled pool: the rows of `load_task(spec, seed).pool`.

    A labelled task's validation and test rows are no part of its pool; without `doc_to_target`
    nothing is cut off, so the whole split is. Iterating reads the source from its start: once
    where nothing is cut and no `cap` set, else twice. Eight bytes a row and `cap` rows are held
    (some 60 bytes a row where one pass has to know a text again).

    Args:
        seed: of the split, `tasks.seed` of a run.
        cap: draw so many rows; they come in the order drawn, after the bad rows. Without it rows
            come in the source's order.
        draw_seed: of the draw, `coslow.seed` of a run.
        least: with fewer rows than that left by the cut, the whole split is the pool, as `note`
            then says.

    Attributes:
        duplicates, left_out, held_out, beyond_cap: rows of the last pass that repeat a text, that
            `doc_to_keep` leaves out, that are kept for validation and test, that were not drawn.

    Raises:
        DataError: while iterating; the source as a whole cannot be read.
    """

    def __init__(
        self,
        spec: TaskSpec,
        seed: int,
        cap: int | None = None,
        draw_seed: int = 0,
        least: int = 0,
    ):
        self.spec, self.seed, self.cap, self.least = spec, seed, cap, least
        self.draw_seed = draw_seed
        self.duplicates = self.left_out = self.held_out = self.beyond_cap = 0
        self.note: str | None = None

    def __iter__(self) -> Iterator[PoolRow]:
        if self.cap is None and self.spec.doc_to_target is None:
            return self._distinct()
        return self._drawn()

    def pick(self, indices: Collection[int]) -> dict[int, SourceRow]:
        """The raw rows of those numbers; reading stops at the last of them."""
        wanted = set(indices)
        found: dict[int, SourceRow] = {}
        for row in source_rows(self.spec, self.spec.training_split, self.seed):
            if row.index in wanted:
                found[row.index] = row
            if len(found) == len(wanted):
                break
        return found

    def _distinct(self) -> Iterator[PoolRow]:
        seen: set[int] = set()
        self.duplicates = 0
        for row in self._rendered():
            if row.error is None:
                if (key := text_key(row.text)) in seen:
                    self.duplicates += 1
                    continue
                seen.add(key)
            yield row

    def _drawn(self) -> Iterator[PoolRow]:
        order = self._order()
        if self.cap is None:
            kept = np.zeros(int(order.max(initial=-1)) + 1, bool)
            kept[order] = True
            for row in self._rendered():
                if row.error or (row.index < len(kept) and kept[row.index]):
                    yield row
            return
        wanted = draw(order, self.cap, self.spec.task, self.draw_seed).tolist()
        self.beyond_cap = len(order) - len(wanted)
        drawn: dict[int, PoolRow | None] = dict.fromkeys(wanted)
        for row in self._rendered():
            if row.error:
                yield row
            elif row.index in drawn:
                drawn[row.index] = row
        for index, row in drawn.items():
            if row is None:
                raise DataError(f"row {index} is gone: the source changed while it was read")
            yield row

    def _order(self) -> np.ndarray:
        """int64 [rows of the pool], their numbers in the source, shuffled as `load_task` does."""
        spec, held = self.spec, array("Q")
        labelled = spec.doc_to_target is not None
        for split in (spec.test_split, spec.validation_split) if labelled else ():
            if split:
                held.extend(text_key(r.text) for r in self._rendered(split) if not r.error)
        keys, numbers = array("Q"), array("q")
        for row in self._rendered():
            if row.error is None:
                keys.append(text_key(row.text))
                numbers.append(row.index)
        found = np.frombuffer(keys, np.uint64) if keys else np.empty(0, np.uint64)
        first = first_of_each(found)
        self.duplicates = len(found) - len(first)
        whole = np.array(numbers, np.int64)[first]
        kept = whole[~np.isin(found[first], held)] if held else whole
        shuffle_rows(spec.task, self.seed, kept)
        pool = kept[sum(cuts(spec, len(kept))) :] if labelled else kept
        self.note = None
        if len(pool) < min(self.least, len(whole)):
            self.note = (
                f"{spec.label}: {len(pool)} rows are left beside those for validation and test, "
                f"fewer than {self.least}; the pool is all {len(whole)} rows"
            )
            pool = whole.copy()
            shuffle_rows(spec.task, self.seed, pool)
        self.held_out = len(whole) - len(pool)
        return pool

    def _rendered(self, split: str | None = None) -> Iterator[PoolRow]:
        spec, pool = self.spec, split is None
        split = split or spec.training_split
        self.left_out = 0 if pool else self.left_out
        for row in source_rows(spec, split, self.seed):
            text, error = "", row.error
            if row.values is not None:
                try:
                    if spec.doc_to_keep and is_left_out(spec.doc_to_keep, row.values):
                        self.left_out += pool
                        continue
                    text = row_text(spec, row.values, row.where)
                except DataError as problem:
                    error = str(problem).removeprefix(f"{row.where}: ")
            yield PoolRow(row.index, row_id(split, row.index), row.where, text, error)


def text_key(text: str) -> int:
    """64 bits that tell a text from all others of its data set."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def first_of_each(keys: np.ndarray) -> np.ndarray:
    """int64, ascending: where each distinct one of `keys` stands first."""
    return np.sort(np.unique(keys, return_index=True)[1])


def shuffle_rows(task: str, seed: int, rows: np.ndarray, what: str = "split") -> None:
    """Bring `rows` into the order of a seed, in place."""
    # As that of a list would be; an array takes no object per row.
    random.Random(f"{seed}:{task}:{what}").shuffle(rows)  # type: ignore[arg-type]


def cuts(spec: TaskSpec, total: int) -> tuple[int, int]:
    """Rows to cut from `total` training rows for the test and for validation, in this order."""
    test = 0 if spec.test_split else _size(spec.test_size, total)
    return test, 0 if spec.validation_split else _size(spec.validation_size, total)


def draw(order: np.ndarray, cap: int, task: str, seed: int) -> np.ndarray:
    """A seeded draw of `cap` of `order`, in an order of its own; all as they are, if no more."""
    if cap >= len(order):
        return order
    chosen = random.Random(f"{seed}:{task}:pool").sample(range(len(order)), cap)
    return order[chosen]


def _size(size: int | float, total: int) -> int:
    return size if isinstance(size, int) else max(1, int(size * total))


def row_text(spec: TaskSpec, row: Mapping[str, Any], where: str) -> str:
    """The row's prompt, never empty; `where` names the row in errors (DataError)."""
    try:
        text = render(spec.doc_to_text, row, field="doc_to_text")
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    if not text:
        raise DataError(f"{where}: doc_to_text renders an empty prompt; fill the row or drop it")
    return text


def render_row(spec: TaskSpec, row: SourceRow) -> tuple[str, str] | None:
    """Text and answer of one row, None where `doc_to_keep` leaves it out.

    Raises:
        DataError: the row cannot be read, a template fails or renders nothing, or the answer is
            none of the choices.
    """
    where = row.where
    if row.values is None:
        raise DataError(f"{where}: {row.error}")
    if spec.doc_to_target is None:
        raise DataError("doc_to_target is missing: name the column with the answer")
    try:
        if spec.doc_to_keep and is_left_out(spec.doc_to_keep, row.values):
            return None
        target = render(spec.doc_to_target, row.values, field="doc_to_target")
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    text = row_text(spec, row.values, where)
    if not target:
        raise DataError(f"{where}: doc_to_target renders an empty answer; label the row")
    if _is_list(target) and target not in row.values.values():
        raise DataError(
            f"{where}: doc_to_target renders a list, {target:.80}; name the answer that "
            "counts, as {{answers[0]}}"
        )
    if len(target.splitlines()) > 1 and spec.metric in FIRST_LINE:
        raise DataError(
            f"{where}: the answer has several lines, and {spec.metric} compares the first alone; "
            "make doc_to_target one line, or metric token_f1, rouge_l or bleu"
        )
    return text, checked_answer(spec, target, where)


def checked_answer(spec: TaskSpec, answer: str, where: str) -> str:
    """The answer as `doc_to_choice` spells it.

    Raises:
        DataError: it is none of the choices.
    """
    if spec.doc_to_choice is None:
        return answer
    choice = choice_of(answer, spec.doc_to_choice)
    if choice is None:
        raise DataError(
            f"{where}: answer {cell(answer)} is not in doc_to_choice {list(spec.doc_to_choice)}; "
            "mend the row or add the answer"
        )
    return choice


def _is_list(text: str) -> bool:
    try:
        return text.startswith("[") and isinstance(ast.literal_eval(text), list)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return False


def is_left_out(template: str, row: Mapping[str, Any]) -> bool:
    """Whether `doc_to_keep` says to leave the row out; DataError if it says neither."""
    verdict = render(template, row, field="doc_to_keep")
    if verdict not in {"True", "False"}:
        raise DataError(
            f"doc_to_keep renders {cell(verdict)}; make it a comparison: they render True or False"
        )
    return verdict == "False"
