"""What examples are drawn from: a task's rows in a file or on the hub, a loaded task's, or prompts.

A pool is read as often as needed (its shards, then the rows that were drawn) and never held whole.
Its rows, their order and their ids are the same whichever way a task's pool is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from taskeff.config import CosLowConfig
from taskeff.errors import DataError
from taskeff.storage import digest
from taskeff.tasks.examples import Example, row_id, row_number, rows_at
from taskeff.tasks.from_data import task_name
from taskeff.tasks.prompts import Prompter, RenderedPrompter
from taskeff.tasks.readers import SourceRow, file_stamp, format_of, read_file
from taskeff.tasks.rows import PoolRow, PoolStream, checked_answer, draw, row_text
from taskeff.tasks.source import row_of, source_stamp
from taskeff.tasks.spec import TaskSpec
from taskeff.tasks.task import Task
from taskeff.tasks.templates import render

PROMPT_FIELD = "input_text"  # of the published pools: the prompt, its chat template applied
_SPEC_FIELDS = {
    "task",
    "dataset_path",
    "dataset_name",
    "dataset_kwargs",
    "training_split",
    "description",
    "doc_to_text",
    "doc_to_keep",
    "max_new_tokens",
}


_CUT_FIELDS = {"validation_split", "test_split", "validation_size", "test_size"}


class Rows(Protocol):
    """One pass over a pool, and what it has left out so far."""

    duplicates: int
    left_out: int
    held_out: int
    beyond_cap: int
    note: str | None

    def __iter__(self) -> Iterator[PoolRow]: ...


class Pool(Protocol):
    """Unlabelled rows, and the labels that their source may have."""

    @property
    def about(self) -> PoolAbout:
        """What is known of it without reading a row."""
        ...

    def rows(self) -> Rows:
        """One pass over all rows, bad ones included."""
        ...

    def examples(self, numbers: Sequence[int]) -> list[Example]:
        """The rows of these numbers, in this order; `target` None where the source has no label.

        Raises:
            DataError: a row is gone, or its label is none of the choices, by file and line.
        """
        ...

    def stamp(self) -> list[dict[str, str]]:
        """What changes when the source does.

        Raises:
            DataError: the source is missing or cannot be reached.
        """
        ...


@dataclass(frozen=True)
class PoolAbout:
    """A pool's name and what its prompts are made of.

    Attributes:
        rendered: its rows are prompts already.
        description: the instruction, "" where they are.
        choices: the labels that count, None where any does.
        max_new_tokens: of an answer; None leaves it to the settings.
        labelled_by: what its labels come from: other labels redo what follows confidence.
        decided_by: what its prompts come from, for `signal_hash`.
    """

    name: str
    rendered: bool
    description: str
    choices: tuple[str, ...] | None
    max_new_tokens: int | None
    labelled_by: Any
    decided_by: Any

    def prompter(self, tokenizer: Any) -> Prompter:
        """What turns its rows into token ids."""
        return prompter_of(tokenizer, self.description, rendered=self.rendered)

    def new_tokens(self, settings: CosLowConfig) -> int:
        """Tokens of an answer: the settings' limit, or the pool's own lower one."""
        return min(settings.max_new_tokens, self.max_new_tokens or settings.max_new_tokens)


def prompter_of(tokenizer: Any, description: str, *, rendered: bool) -> Prompter:
    """The prompter of a pool, rendered already or not."""
    return RenderedPrompter(tokenizer) if rendered else Prompter(tokenizer, description)


def _about(spec: TaskSpec, *, labelled: bool, decided_by: Any) -> PoolAbout:
    return PoolAbout(
        name=spec.task,
        rendered=False,
        description=spec.description,
        choices=spec.doc_to_choice,
        max_new_tokens=spec.max_new_tokens,
        labelled_by=[spec.doc_to_target if labelled else None, spec.doc_to_choice],
        decided_by=decided_by,
    )


@dataclass(frozen=True)
class SpecPool:
    """A task file's training split, read from where it lies.

    Args:
        seed: of a bundled builder, and of the split into training and test rows.
        settings: `pool_cap`, the seed of its draw, the examples that must be left.
        labelled: whether to look for labels.
    """

    spec: TaskSpec
    seed: int
    settings: CosLowConfig
    labelled: bool = True

    @property
    def about(self) -> PoolAbout:
        """See `Pool`."""
        decided = self.spec.model_dump(mode="json", include=_SPEC_FIELDS)
        return _about(self.spec, labelled=self.labelled, decided_by=decided)

    def rows(self) -> PoolStream:
        """See `Pool`."""
        settings = self.settings
        return PoolStream(
            self.spec,
            self.seed,
            settings.pool_cap,
            draw_seed=settings.seed,
            least=settings.n_examples,
        )

    def examples(self, numbers: Sequence[int]) -> list[Example]:
        """See `Pool`."""
        spec, found = self.spec, self.rows().pick(numbers)
        examples: list[Example] = []
        for number in numbers:
            row = found.get(number)
            if row is None or row.values is None:
                raise DataError(
                    f"row {number} is gone: the source changed while it was scored; run again"
                )
            label = self._label(row.values, row.where) if self.labelled else None
            text = row_text(spec, row.values, row.where)
            examples.append(Example(row_id(spec.training_split, number), text, label))
        return examples

    def stamp(self) -> list[dict[str, str]]:
        """See `Pool`."""
        spec = self.spec
        cut = spec.model_dump(mode="json", include=_CUT_FIELDS) if spec.doc_to_target else None
        return [*source_stamp(spec), {"cut": digest(cut)}]

    def _label(self, values: Mapping[str, Any], where: str) -> str | None:
        spec = self.spec
        if spec.doc_to_target is None:
            return None
        try:
            label = render(spec.doc_to_target, values, field="doc_to_target")
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        return checked_answer(spec, label, where) if label else None


@dataclass(frozen=True)
class TaskPool:
    """The training rows of a loaded task, all of them labelled."""

    task: Task
    settings: CosLowConfig

    @property
    def about(self) -> PoolAbout:
        """See `Pool`."""
        return _about(self.task.spec, labelled=True, decided_by=self.task.data_hash)

    def rows(self) -> Rows:
        """See `Pool`."""
        places = self.task.pool_rows(self.settings.pool_cap, self.settings.seed)
        rows = (
            PoolRow(row_number(one.id), one.id, row_of(self.task.spec, one.id), one.text)
            for one in rows_at(self.task.train, places)
        )
        return _Rows(rows, len(self.task.train) - len(places))

    def examples(self, numbers: Sequence[int]) -> list[Example]:
        """See `Pool`."""
        wanted = set(numbers)
        found = {n: one for one in self.task.train if (n := row_number(one.id)) in wanted}
        return [found[number] for number in numbers]

    def stamp(self) -> list[dict[str, str]]:
        """See `Pool`."""
        return [{"data": self.task.data_hash}]


@dataclass(frozen=True)
class RenderedPool:
    """A file of prompts in the published layout: rows with `input_text`, in any format.

    The text is taken to the letter, and repeated texts stay: how they were made is not known.
    """

    path: str
    settings: CosLowConfig

    @property
    def about(self) -> PoolAbout:
        """See `Pool`."""
        return PoolAbout(task_name(self.path), True, "", None, None, None, self.path)

    def rows(self) -> Rows:
        """See `Pool`."""
        cap = self.settings.pool_cap
        rows = map(_rendered, self._read())
        size = 0 if cap is None else sum(1 for _ in self._read())
        if cap is None or cap >= size:
            return _Rows(rows)
        drawn = draw(np.arange(size), cap, self.about.name, self.settings.seed).tolist()
        wanted = frozenset(drawn)
        found = {row.index: row for row in rows if row.index in wanted}
        return _Rows((found[number] for number in drawn), size - cap)

    def examples(self, numbers: Sequence[int]) -> list[Example]:
        """See `Pool`."""
        wanted = frozenset(numbers)
        rows = map(_rendered, self._read())
        found = {row.index: Example(row.id, row.text) for row in rows if row.index in wanted}
        return [found[number] for number in numbers]

    def stamp(self) -> list[dict[str, str]]:
        """See `Pool`."""
        return [file_stamp(self.path)]

    def _read(self) -> Iterator[SourceRow]:
        return read_file(self.path, format_of(self.path) or "json")


def _rendered(row: SourceRow) -> PoolRow:
    text: object = "" if row.values is None else row.values.get(PROMPT_FIELD)
    error = row.error
    if row.values is not None:
        if PROMPT_FIELD not in row.values:
            there = ", ".join(map(str, row.values)) or "none"
            error = f"no field {PROMPT_FIELD!r}; it has {there}"
        elif not isinstance(text, str):
            error = f"{PROMPT_FIELD!r} is {text!r:.40}, not text; quote it"
        elif not text.strip():
            error = f"{PROMPT_FIELD!r} is empty; fill the row or drop it"
    return PoolRow(row.index, f"row-{row.index}", row.where, "" if error else str(text), error)


class _Rows:
    """Rows that were counted already, or whose repeated texts stay."""

    duplicates = left_out = held_out = 0
    note: str | None = None

    def __init__(self, rows: Iterable[PoolRow], beyond_cap: int = 0):
        self._rows, self.beyond_cap = rows, beyond_cap

    def __iter__(self) -> Iterator[PoolRow]:
        return iter(self._rows)
