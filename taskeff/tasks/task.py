"""Task YAML -> examples, splits, nested budget subsets.

Task files use the words of lm-evaluation-harness. The rows come from a hub data set, from local
files or from a bundled builder; everything after that is the same for all of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator

from taskeff.errors import ConfigError, DataError, StorageError, TaskeffError
from taskeff.storage import digest, safe_part
from taskeff.tasks.metrics import check_metric, normalise
from taskeff.tasks.source import row_name, source_rows, splits_of, with_local_files
from taskeff.tasks.templates import columns_of, render

HARDLY_MORE = 1.1
REFUSED_KWARGS = ("trust_remote_code", "streaming", "split", "path", "name")


@dataclass(frozen=True)
class Example:
    """One row as rendered text; `target` is None where it is not labelled."""

    id: str
    text: str
    target: str | None = None


class TaskSpec(BaseModel):
    """A task file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    dataset_path: str
    """A hub id, `json`, `csv` or `parquet` (with `dataset_kwargs.data_files`), `builder:NAME`."""
    dataset_name: str | None = None
    dataset_kwargs: dict[str, Any] = Field(default_factory=dict)
    training_split: str = "train"
    validation_split: str | None = None
    test_split: str | None = None
    description: str = ""
    doc_to_text: str
    doc_to_target: str | None = None
    doc_to_choice: tuple[str, ...] | None = None
    doc_to_keep: str | None = None
    """A template that renders `True` for the labelled rows to keep; the others are left out. It
    may ask for the label, so an unlabelled pool is taken whole."""
    metric: str = "exact_match"
    max_new_tokens: int = Field(default=30, ge=1)
    test_size: int | float = Field(default=0.1, gt=0)
    """Rows (or share of them) taken from the training split where there is no test split."""
    validation_size: int | float = Field(default=0.1, gt=0)
    ceiling: float | None = Field(default=None, gt=0, le=1)
    """The score a human reaches, where it is known."""
    metadata: dict[str, Any] = Field(default_factory=dict)
    _file: str | None = PrivateAttr(default=None)

    @property
    def label(self) -> str:
        """The task as messages name it: with its file, if that is not a bundled one."""
        return f"task {self.task!r}" + (f" ({self._file})" if self._file else "")

    @field_validator("task")
    @classmethod
    def _is_a_path_part(cls, value: str) -> str:
        return safe_part(value)

    @field_validator("metric")
    @classmethod
    def _is_a_metric(cls, value: str) -> str:
        try:
            return check_metric(value)
        except ConfigError as error:
            raise ValueError(str(error)) from None

    @field_validator("doc_to_text", "doc_to_target", "doc_to_keep")
    @classmethod
    def _reads_a_column(cls, value: str | None) -> str | None:
        if value is not None and not columns_of(value):
            raise ValueError(
                f"template {value!r} names no column, so every row would be the same; "
                "write a column as {{name}}"
            )
        return value

    @field_validator("doc_to_choice")
    @classmethod
    def _are_told_apart(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        kept: dict[str, str] = {}
        for choice in value or ():
            same = kept.setdefault(normalise(choice), choice)
            if not normalise(choice):
                raise ValueError(f"{choice!r} is empty once normalised; give every answer a word")
            if same is not choice:
                raise ValueError(f"{same!r} and {choice!r} count as the same answer; drop one")
        return value

    @field_validator("dataset_kwargs")
    @classmethod
    def _leaves_the_rest_to_us(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key in REFUSED_KWARGS:
            if key in value:
                raise ValueError(
                    f"{key} cannot be given: no data set's code is run, and id, configuration "
                    "and splits have fields of their own"
                )
        return value


@dataclass(frozen=True)
class Task:
    """A task with its splits; `train` is also the unlabelled pool."""

    spec: TaskSpec
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]

    @property
    def name(self) -> str:
        """The task's name."""
        return self.spec.task

    @cached_property
    def data_hash(self) -> str:
        """A digest of every rendered row and of the settings that score it."""
        rows = [
            [(e.id, e.text, e.target) for e in s] for s in (self.train, self.validation, self.test)
        ]
        spec = self.spec
        return digest(
            [rows, spec.description, spec.doc_to_choice, spec.metric, spec.max_new_tokens]
        )

    def budgets(self, wanted: Sequence[int]) -> tuple[int, ...]:
        """The budgets of `wanted` that the training rows allow, and all rows in place of the rest.

        All rows are no budget of their own where they are hardly more than the one before.
        """
        rows = len(self.train)
        within = tuple(budget for budget in wanted if budget <= rows)
        if len(within) == len(wanted) or (within and rows < HARDLY_MORE * within[-1]):
            return within
        return (*within, rows)

    def subset(self, budget: int, seed: int) -> list[Example]:
        """The first `budget` training rows in the order of `seed`: budgets are nested.

        Raises:
            DataError: the task has fewer training rows.
        """
        if budget > len(self.train):
            raise DataError(
                f"{self.spec.label}: budget {budget} is above its {len(self.train)} training rows; "
                "lower the budget or add rows"
            )
        order = list(range(len(self.train)))
        random.Random(f"{seed}:{self.name}:subset").shuffle(order)
        return [self.train[index] for index in order[:budget]]

    def validation_subset(self, budget: int) -> list[Example]:
        """Validation rows for one budget: at most a fifth of it, at least one."""
        return list(self.validation[: max(1, budget // 5)])

    def test_subset(self, cap: int) -> list[Example]:
        """At most `cap` test rows."""
        return list(self.test[:cap])

    def pool(self, cap: int | None, seed: int) -> list[Example]:
        """The unlabelled pool: training rows without their labels, a seeded draw of `cap`."""
        rows = [Example(example.id, example.text) for example in self.train]
        return _draw(rows, cap, self.name, seed)


def load_spec(name_or_path: str | Path) -> TaskSpec:
    """The bundled task of that name, or the task file at that path.

    Raises:
        DataError: no such task or file, not YAML, an unknown or missing field.
    """
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"}:
        from taskeff.tasks.suite import suite_path

        path = suite_path(str(name_or_path))
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such task file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path}: not a readable task file: {error}") from None
    if not isinstance(values, dict):
        raise DataError(f"{path}: expected the fields of a task at the top level")
    try:
        spec = TaskSpec.model_validate(values)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, p['loc']))}: {p['msg'].removeprefix('Value error, ')}"
            for p in error.errors()
        ]
        raise DataError(f"{path}: " + "; ".join(problems)) from None
    except StorageError as error:
        raise DataError(f"{path}: task: {error}") from None
    try:
        spec = with_local_files(spec, path.parent)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    if path == Path(name_or_path):
        spec._file = str(path)
    return spec


def read_specs(names: Iterable[str]) -> tuple[list[TaskSpec], list[TaskeffError]]:
    """`load_spec` for each name: those that are right, and what is wrong with the others."""
    specs: dict[str, TaskSpec] = {}
    problems: list[TaskeffError] = []
    for name in names:
        try:
            spec = load_spec(name)
        except TaskeffError as error:
            problems.append(error)
            continue
        if spec.task not in specs:
            specs[spec.task] = spec
            continue
        files = [one._file or "bundled" for one in (specs[spec.task], spec)]
        problems.append(
            ConfigError(
                f"two tasks are called {spec.task!r} ({files[0]}, {files[1]}); rename or drop one"
            )
        )
    return list(specs.values()), problems


def load_task(spec: TaskSpec, seed: int) -> Task:
    """Rows rendered, deduplicated by text, and split.

    Missing validation and test splits are cut from one shuffle of the training rows, seeded by
    `seed` and the task's name; splits never share a text.

    Raises:
        DataError: naming the task, the row and the field.
    """
    try:
        source = source_rows(spec, seed)
        splits = {name: _render_split(spec, name, rows) for name, rows in source.items()}
    except TaskeffError as error:
        raise DataError(f"{spec.label}: {error}") from None
    for name in splits_of(spec):
        if not splits[name]:
            kept = " that doc_to_keep keeps" if spec.doc_to_keep else ""
            raise DataError(f"{spec.label}: split {name!r} has no rows{kept}; add rows")
    seen: set[str] = set()
    test = _distinct(splits[spec.test_split], seen) if spec.test_split else []
    validation = _distinct(splits[spec.validation_split], seen) if spec.validation_split else []
    train = _distinct(splits[spec.training_split], seen)
    random.Random(f"{seed}:{spec.task}:split").shuffle(train)
    total = len(train)
    if not spec.test_split:
        cut = _size(spec.test_size, total)
        test, train = train[:cut], train[cut:]
    if not spec.validation_split:
        cut = _size(spec.validation_size, total)
        validation, train = train[:cut], train[cut:]
    for what, rows in (("training", train), ("validation", validation), ("test", test)):
        if not rows:
            raise DataError(
                f"{spec.label}: no {what} rows ({total} distinct ones before splitting); "
                f"add rows or change test_size and validation_size"
            )
    return Task(spec, tuple(train), tuple(validation), tuple(test))


def load_pool(spec: TaskSpec, seed: int, cap: int | None = None) -> list[Example]:
    """The training split as an unlabelled pool, or a seeded draw of `cap` rows of it.

    Only `doc_to_text` and `doc_to_keep` are rendered.

    Raises:
        DataError: naming the task, the row and the field.
    """
    try:
        split = spec.training_split
        rows = source_rows(spec, seed)[split]
        examples = [
            Example(f"{split}-{index}", row_text(spec, row, row_name(spec, split, index)))
            for index, row in enumerate(rows)
            if not (spec.doc_to_keep and is_left_out(spec.doc_to_keep, row))
        ]
    except TaskeffError as error:
        raise DataError(f"{spec.label}: {error}") from None
    if not examples:
        raise DataError(f"{spec.label}: the pool is empty; add rows")
    return _draw(_distinct(examples, set()), cap, spec.task, seed)


def row_text(spec: TaskSpec, row: Mapping[str, Any], where: str) -> str:
    """The row's prompt, never empty; `where` names the row in errors (DataError)."""
    try:
        text = render(spec.doc_to_text, row, field="doc_to_text")
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    if not text:
        raise DataError(f"{where}: doc_to_text renders an empty prompt; fill the row or drop it")
    return text


def _render_split(spec: TaskSpec, split: str, rows: Iterable[Mapping[str, Any]]) -> list[Example]:
    examples: list[Example] = []
    for index, row in enumerate(rows):
        rendered = render_row(spec, row, row_name(spec, split, index))
        if rendered is not None:
            examples.append(Example(f"{split}-{index}", *rendered))
    return examples


def render_row(spec: TaskSpec, row: Mapping[str, Any], where: str) -> tuple[str, str] | None:
    """Text and answer of one row, None where `doc_to_keep` leaves it out.

    Args:
        where: the row, for messages.

    Raises:
        DataError: a template fails, renders nothing, or an answer that is none of the choices.
    """
    try:
        if spec.doc_to_keep and is_left_out(spec.doc_to_keep, row):
            return None
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    text = row_text(spec, row, where)
    try:
        target = render(spec.doc_to_target, row, field="doc_to_target")
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    if not target:
        raise DataError(f"{where}: doc_to_target renders an empty answer; label the row")
    if spec.doc_to_choice is not None and target not in spec.doc_to_choice:
        raise DataError(
            f"{where}: answer {target!r} is not in doc_to_choice {list(spec.doc_to_choice)}; "
            "mend the row or add the answer"
        )
    return text, target


def is_left_out(template: str, row: Mapping[str, Any]) -> bool:
    """Whether `doc_to_keep` says to leave the row out; DataError if it says neither."""
    verdict = render(template, row, field="doc_to_keep")
    if verdict not in {"True", "False"}:
        raise DataError(
            f"doc_to_keep renders {verdict!r}; make it a comparison, which renders True or False"
        )
    return verdict == "False"


def _draw(rows: list[Example], cap: int | None, task: str, seed: int) -> list[Example]:
    if cap is None or cap >= len(rows):
        return rows
    return random.Random(f"{seed}:{task}:pool").sample(rows, cap)


def _distinct(examples: Sequence[Example], seen: set[str]) -> list[Example]:
    kept: list[Example] = []
    for example in examples:
        if example.text not in seen:
            seen.add(example.text)
            kept.append(example)
    return kept


def _size(size: int | float, total: int) -> int:
    return size if isinstance(size, int) else max(1, int(size * total))
