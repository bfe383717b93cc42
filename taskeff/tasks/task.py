"""Task YAML -> examples, splits, nested budget subsets.

Task files use the words of lm-evaluation-harness. The rows come from a hub data set, from local
files or from a bundled builder; everything after that is the same for all of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import jinja2
import yaml
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from taskeff.errors import ConfigError, DataError, StorageError, TaskeffError
from taskeff.store import digest, safe_part
from taskeff.tasks.metrics import check_metric

FILE_FORMATS = ("json", "csv", "parquet")
_ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined,
    # An empty cell must be found out as an empty answer, not become the word "None".
    finalize=lambda value: "" if value is None else value,
)


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
    doc_to_target: str
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

    def subset(self, budget: int, seed: int) -> list[Example]:
        """The first `budget` training rows in the order of `seed`: budgets are nested.

        Raises:
            DataError: the task has fewer training rows.
        """
        if budget > len(self.train):
            raise DataError(
                f"task {self.name!r}: budget {budget} is above its {len(self.train)} training rows"
                "; lower the budget or add rows"
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
        problems = [f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors()]
        raise DataError(f"{path}: " + "; ".join(problems)) from None
    except StorageError as error:
        raise DataError(f"{path}: task: {error}") from None
    return _with_local_files(spec, path.parent)


def load_specs(names: Iterable[str]) -> list[TaskSpec]:
    """`load_spec` for each name.

    Raises:
        ConfigError: two tasks have one name.
    """
    specs = [load_spec(name) for name in names]
    seen: set[str] = set()
    for spec in specs:
        if spec.task in seen:
            raise ConfigError(f"two tasks are called {spec.task!r}; rename one")
        seen.add(spec.task)
    return specs


def load_task(spec: TaskSpec, seed: int) -> Task:
    """Rows rendered, deduplicated by text, and split.

    Missing validation and test splits are cut from one shuffle of the training rows, seeded by
    `seed` and the task's name; splits never share a text.

    Raises:
        DataError: naming the task, the row and the field.
    """
    try:
        given = source_rows(spec, seed)
        splits = {name: _render_split(spec, name, rows) for name, rows in given.items()}
    except TaskeffError as error:
        raise DataError(f"task {spec.task!r}: {error}") from None
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
                f"task {spec.task!r}: no {what} rows ({total} rows before splitting); "
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
        rows = source_rows(spec, seed)[spec.training_split]
        examples = [
            Example(f"{spec.training_split}-{index}", row_text(spec, row, f"row {index}"))
            for index, row in enumerate(rows)
            if not (spec.doc_to_keep and is_left_out(spec.doc_to_keep, row))
        ]
    except TaskeffError as error:
        raise DataError(f"task {spec.task!r}: {error}") from None
    if not examples:
        raise DataError(f"task {spec.task!r}: the pool is empty; add rows")
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


def render(template: str, row: Mapping[str, Any], *, field: str) -> str:
    """A Jinja2 template over one row's columns, sandboxed.

    The whole row is `doc`, for columns whose names are no words: `doc["question-X"]`.

    Raises:
        DataError: a column is missing or the template is wrong.
    """
    try:
        return _compiled(template).render({"doc": row, **row}).strip()
    except jinja2.UndefinedError as error:
        raise DataError(f"{field}: {error}; columns are: {', '.join(map(str, row))}") from None
    except (jinja2.TemplateError, TypeError, ValueError) as error:
        raise DataError(f"{field}: template {template!r}: {error}") from None


@lru_cache(maxsize=256)
def _compiled(template: str) -> jinja2.Template:
    return _ENVIRONMENT.from_string(template)


def _render_split(spec: TaskSpec, split: str, rows: Iterable[Mapping[str, Any]]) -> list[Example]:
    examples: list[Example] = []
    for index, row in enumerate(rows):
        where = f"{split} row {index}"
        try:
            if spec.doc_to_keep and is_left_out(spec.doc_to_keep, row):
                continue
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
                f"{where}: answer {target!r} is not in doc_to_choice {list(spec.doc_to_choice)}"
            )
        examples.append(Example(f"{split}-{index}", text, target))
    return examples


def is_left_out(template: str, row: Mapping[str, Any]) -> bool:
    """Whether `doc_to_keep` says to leave the row out; DataError if it says neither."""
    verdict = render(template, row, field="doc_to_keep")
    if verdict not in {"True", "False"}:
        raise DataError(
            f"doc_to_keep renders {verdict!r}; make it a comparison, which renders True or False"
        )
    return verdict == "False"


def _with_label_names(split: Any) -> Iterator[Mapping[str, Any]]:
    """The rows of a data set, with `COLUMN_name` beside every column of class labels.

    A row that is not labelled (-1, as in hidden test sets) has an empty name.
    """
    labels = {
        column: feature.names
        for column, feature in split.features.items()
        if hasattr(feature, "names")
    }
    for row in split:
        named = {
            f"{column}_name": names[row[column]] if row[column] in range(len(names)) else ""
            for column, names in labels.items()
        }
        yield {**named, **row}


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


def source_rows(spec: TaskSpec, seed: int) -> dict[str, Iterable[Mapping[str, Any]]]:
    """The raw rows of each split; DataError if the data set or a split cannot be had."""
    if spec.dataset_path.startswith("builder:"):
        from taskeff.tasks.suite import build

        name = spec.dataset_path.removeprefix("builder:")
        return {spec.training_split: build(name, seed, **spec.dataset_kwargs)}
    wanted = [s for s in (spec.training_split, spec.validation_split, spec.test_split) if s]
    import datasets
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    datasets.disable_progress_bars()
    try:
        loaded: Any = datasets.load_dataset(
            spec.dataset_path, spec.dataset_name, **spec.dataset_kwargs
        )
    except (
        OSError,
        ValueError,
        RuntimeError,
        HfHubHTTPError,
        DatasetsError,
    ) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"cannot load dataset_path {spec.dataset_path!r}: {first}; "
            "check the id or file, the network and HF_HUB_OFFLINE"
        ) from error
    for split in wanted:
        if split not in loaded:
            raise DataError(f"no split {split!r}; there are: {', '.join(loaded)}")
    return {split: _with_label_names(loaded[split]) for split in wanted}


def _with_local_files(spec: TaskSpec, folder: Path) -> TaskSpec:
    """Relative `data_files` are relative to the task file."""
    if spec.dataset_path not in FILE_FORMATS:
        return spec
    files: Any = spec.dataset_kwargs.get("data_files")
    if not files:
        raise DataError(
            f"task {spec.task!r}: dataset_path {spec.dataset_path!r} needs "
            "dataset_kwargs.data_files"
        )

    def absolute(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: absolute(item) for key, item in value.items()}  # type: ignore[misc]
        if isinstance(value, list):
            return [absolute(item) for item in value]  # type: ignore[misc]
        if "://" in str(value):
            return value
        path = folder / str(value)
        if not path.exists():
            raise DataError(f"task {spec.task!r}: data file {path} does not exist")
        return str(path)

    return spec.model_copy(
        update={"dataset_kwargs": {**spec.dataset_kwargs, "data_files": absolute(files)}}
    )
