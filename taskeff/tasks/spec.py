"""The task file: where rows are, how a row becomes a question and an answer, how it is scored.

Task files use the words of lm-evaluation-harness; its own files are read too (`harness.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from taskeff.errors import ConfigError, DataError, StorageError, TaskeffError, yaml_fault
from taskeff.schema import reasons
from taskeff.storage import safe_part
from taskeff.tasks import harness
from taskeff.tasks.metrics import check_metric, normalise
from taskeff.tasks.readers import OPTIONS, check_options, located
from taskeff.tasks.templates import columns_of

HUB_OPTIONS = ("revision", "data_files", "data_dir")
REFUSED_KWARGS = ("trust_remote_code", "streaming", "split", "path", "name")


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
    """Left out where no label is read: by a pool to select from, not by a task to train on."""
    doc_to_choice: tuple[str, ...] | None = None
    doc_to_keep: str | None = None
    """A template that renders `True` for the rows to keep; the others are left out."""
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

    @property
    def splits(self) -> list[str]:
        """Names of the source's splits that the task reads, training first."""
        return [s for s in (self.training_split, self.validation_split, self.test_split) if s]

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

    @field_validator("doc_to_choice", mode="before")
    @classmethod
    def _are_words(cls, value: Any) -> Any:
        for choice in value if isinstance(value, list | tuple) else ():
            if isinstance(choice, bool):
                raise ValueError(
                    "YAML reads yes/no (and on/off) as true/false; write them in quotes"
                )
            if not isinstance(choice, str):
                raise ValueError(f"{choice!r} is no text; write it in quotes")
        return value

    @field_validator("doc_to_choice")
    @classmethod
    def _are_told_apart(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        kept: dict[str, str] = {}
        for choice in value or ():
            same = kept.setdefault(normalise(choice), choice)
            if not normalise(choice):
                raise ValueError(f"{choice!r} is empty once normalised; give every answer a word")
            if choice != choice.strip():
                raise ValueError(
                    f"{choice!r} begins or ends with a blank, which no answer does once it is "
                    f"read; write {choice.strip()!r}"
                )
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

    @model_validator(mode="after")
    def _reads_its_files(self) -> TaskSpec:
        if self.dataset_path in OPTIONS:
            try:
                check_options(self.dataset_path, self.file_options)
            except DataError as error:
                raise ValueError(f"dataset_kwargs: {error}") from None
        return self

    @model_validator(mode="after")
    def _reads_the_hub(self) -> TaskSpec:
        if self.dataset_path in OPTIONS or self.dataset_path.startswith("builder:"):
            return self
        for key in self.dataset_kwargs:
            if key not in HUB_OPTIONS:
                raise ValueError(f"dataset_kwargs: {key!r} is none of {', '.join(HUB_OPTIONS)}")
        names = [self.dataset_kwargs.get("data_files"), self.dataset_kwargs.get("data_dir")]
        for name in leaves(names):
            if "::" in name or "://" in name or name.startswith("/") or ".." in name.split("/"):
                raise ValueError(f"dataset_kwargs: {name!r:.80} is no file of the data set's own")
        return self

    @property
    def file_options(self) -> dict[str, Any]:
        """How the task's files are read: `dataset_kwargs` without their names."""
        return {k: v for k, v in self.dataset_kwargs.items() if k != "data_files"}


def load_spec(name_or_path: str | Path) -> TaskSpec:
    """The bundled task of that name, or the task file at that path, ours or the harness's.

    Raises:
        DataError: no such task or file, not YAML, an unknown or missing field.
    """
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"}:
        from taskeff.tasks.suite import suite_path

        path = suite_path(str(name_or_path))
    try:
        values = harness.read(path)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such task file") from None
    except Exception as error:  # noqa: BLE001 - YAML's constructors raise what they like
        raise DataError(f"{path}: not a readable task file: {yaml_fault(error)}") from None
    if not isinstance(values, dict):
        raise DataError(f"{path}: expected the fields of a task at the top level")
    try:
        spec = TaskSpec.model_validate(values)
    except ValidationError as error:
        raise DataError(f"{path}: {reasons(error)}") from None
    except StorageError as error:
        raise DataError(f"{path}: task: {error}") from None
    try:
        spec = _with_local_files(spec, path.parent)
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


def leaves(value: Any) -> list[str]:
    """The names in lists and mappings of names."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [name for item in value for name in leaves(item)]
    return [] if value is None else [str(value)]


def _with_local_files(spec: TaskSpec, folder: Path) -> TaskSpec:
    """The task with its relative `data_files` read from `folder`, that of its task file."""
    if spec.dataset_path not in OPTIONS:
        return spec
    files: Any = spec.dataset_kwargs.get("data_files")
    if not files:
        raise DataError(f"dataset_path {spec.dataset_path!r} needs dataset_kwargs.data_files")
    found = {**spec.dataset_kwargs, "data_files": _found(files, folder)}
    return spec.model_copy(update={"dataset_kwargs": found})


def _found(value: Any, folder: Path) -> Any:
    if isinstance(value, Mapping):
        return {key: _found(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_found(item, folder) for item in value]
    try:
        return located(str(value), str(folder))
    except DataError as error:
        raise DataError(f"data file {error}; data_files are relative to {folder}") from None
