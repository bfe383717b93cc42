"""A manifest of candidate data sets -> entries; what is wrong with an entry is its own problem.

YAML, JSON lines, CSV or Parquet, one entry per row. An entry names a bundled task or a task file,
or says where rows come from and which columns hold text and label. docs/rank.md lists the fields.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from taskeff.errors import DataError, TaskeffError, redact, yaml_fault
from taskeff.schema import decoded, reasons
from taskeff.storage import filesystem_of, safe_part
from taskeff.tasks.readers import OPTIONS, expanded, format_of, in_words, located, read_file
from taskeff.tasks.source import is_folder
from taskeff.tasks.spec import TaskSpec, leaves, load_spec
from taskeff.tasks.templates import column
from taskeff.yaml_file import MOST_BYTES, parsed_yaml

SpecOf = Callable[[str], TaskSpec]
_TASK_FILES = (".yaml", ".yml")
MOST_ENTRIES = 1_000_000
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class Entry:
    """One candidate data set.

    Attributes:
        spec: its task, called by the entry's name.
        labelled: whether its source carries labels.
        labels: a filled hand-off file, for a source that does not.
        price: of one label, in the user's currency; None takes the run's.
    """

    spec: TaskSpec
    labelled: bool
    labels: str | None = None
    price: float | None = None

    @property
    def name(self) -> str:
        """The entry's name."""
        return self.spec.task


@dataclass(frozen=True)
class Problem:
    """An entry that cannot be used, and why."""

    where: str
    name: str
    reason: str


@dataclass(frozen=True)
class Manifest:
    """The usable entries in their order, and the others' problems."""

    entries: tuple[Entry, ...]
    problems: tuple[Problem, ...] = ()


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    task: str | None = None
    source: str | None = None
    format: str | None = None
    config: str | None = None
    split: str = "train"
    text_column: str | None = None
    label_column: str | None = None
    doc_to_text: str | None = None
    doc_to_target: str | None = None
    description: str | None = None
    choices: tuple[str, ...] | None = None
    max_new_tokens: int | None = Field(default=None, ge=1)
    labels: str | None = None
    price: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("choices", mode="before")
    @classmethod
    def _from_one_cell(cls, value: Any) -> Any:
        return tuple(value.split("|")) if isinstance(value, str) else value

    @field_validator("options", mode="before")
    @classmethod
    def _from_json(cls, value: Any) -> Any:
        try:
            return decoded(value) if isinstance(value, str) else value
        except ValueError as error:
            raise ValueError(f"not JSON: {error}") from None


def load_manifest(path: str, *, strict: bool = False, allow_local: Sequence[str] = ()) -> Manifest:
    """Every entry of the manifest at `path` (a file or any fsspec URI).

    Args:
        strict: a bad entry is an error, rather than listed in `problems`.
        allow_local: folders of this machine that its entries may read, beside its own.

    Raises:
        DataError: the manifest cannot be read or has no usable entry, or `strict` and one is bad.
    """
    path = str(path)
    entries: list[Entry] = []
    problems: list[Problem] = []
    seen: set[str] = set()
    folder = path.rsplit("/", 1)[0] if "/" in path else "."
    allowed = [os.path.realpath(one) for one in (folder, *allow_local) if "://" not in one]

    @lru_cache
    def spec_of(name: str) -> TaskSpec:
        if name.endswith(_TASK_FILES):
            _check_within([name], allowed)
        return load_spec(name)

    for number, (where, values) in enumerate(_records(path), 1):
        if number > MOST_ENTRIES:
            raise DataError(f"{redact(path)}: more than {MOST_ENTRIES:,} entries; split it")
        name = str(values.get("name", "")) if isinstance(values, Mapping) else ""
        try:
            entry = _entry(values, folder, spec_of)
            _check_within(_local_parts(entry), allowed)
            if entry.name in seen:
                raise DataError(f"name {entry.name!r} is given twice; give each entry its own")
        except TaskeffError as error:
            if strict:
                raise DataError(f"{where}: {error}") from None
            problems.append(Problem(where, name, str(error)))
            continue
        seen.add(entry.name)
        entries.append(entry)
    if not entries:
        first = f"; {problems[0].where}: {problems[0].reason}" if problems else ""
        raise DataError(f"{redact(path)}: the manifest has no usable entry{first}")
    return Manifest(tuple(entries), tuple(problems))


def _entry(values: Any, folder: str, spec_of: SpecOf) -> Entry:
    if not isinstance(values, Mapping):
        got = f"{values!r:.80}" if isinstance(values, str) else type(values).__name__
        raise DataError(f"expected the fields of a data set, got {got}")
    # Tables write what is not given as an empty or missing cell.
    given = {str(key): value for key, value in values.items() if not _is_blank(value)}
    try:
        row = _Row.model_validate(given)
        spec = _spec(row, folder, spec_of)
    except ValidationError as error:
        raise DataError(reasons(error)) from None
    if row.labels in (None, "source"):
        return Entry(spec, spec.doc_to_target is not None, None, row.price)
    labels = None if row.labels == "none" else located(row.labels, folder)
    if row.task is None:
        # Nobody reads its labels, so no row is kept back to test on.
        spec = spec.model_copy(update={"doc_to_target": None})
    return Entry(spec, False, labels, row.price)


def _local_parts(entry: Entry) -> list[str]:
    """The files and folders of this machine that an entry reads."""
    spec = entry.spec
    found = [entry.labels] if entry.labels else []
    if spec.dataset_path in OPTIONS:
        found += leaves(spec.dataset_kwargs.get("data_files"))
    elif is_folder(spec):
        found.append(spec.dataset_path)
    return [path for path in found if "://" not in path]


def _check_within(paths: Sequence[str], allowed: Sequence[str]) -> None:
    """Refuse what lies outside the folders that a manifest may read, links followed."""
    for path in paths:
        for file in (path, *expanded(path)):
            real = os.path.realpath(file)
            if not any(os.path.commonpath((real, one)) == one for one in allowed):
                raise DataError(
                    f"{path} is outside the manifest's folder; move it there, or allow its folder "
                    "with --allow-local"
                )


def _is_blank(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _spec(row: _Row, folder: str, spec_of: SpecOf) -> TaskSpec:
    fields = _template(row, folder, spec_of) | _source(row, folder)
    if not fields.get("dataset_path"):
        raise DataError("give `source` (a file, URI or hub id) or `task`")
    if row.split != "train" or "training_split" not in fields:
        fields["training_split"] = row.split
    for key, value in (("description", row.description), ("doc_to_choice", row.choices)):
        if value is not None:
            fields[key] = value
    if row.max_new_tokens is not None:
        fields["max_new_tokens"] = row.max_new_tokens
    fields["task"] = safe_part(row.name)
    if row.source is not None or row.split != "train":
        # These splits are the task's; the data set named here may lack them.
        fields |= {"test_split": None, "validation_split": None}
    return TaskSpec.model_validate(fields)


def _template(row: _Row, folder: str, spec_of: SpecOf) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if row.task is not None:
        is_file = row.task.endswith(_TASK_FILES)
        fields = spec_of(located(row.task, folder) if is_file else row.task).model_dump()
    if row.text_column is not None:
        fields["doc_to_text"] = column(row.text_column)
    if row.doc_to_text is not None:
        fields["doc_to_text"] = row.doc_to_text
    if row.label_column is not None:
        fields["doc_to_target"] = column(row.label_column)
    if row.doc_to_target is not None:
        fields["doc_to_target"] = row.doc_to_target
    if "doc_to_text" not in fields:
        raise DataError("give `text_column`, `doc_to_text` or `task`")
    return fields


def _source(row: _Row, folder: str) -> dict[str, Any]:
    if row.source is None:
        return {"dataset_kwargs": row.options} if row.options else {}
    if row.source.startswith("builder:"):
        return {"dataset_path": row.source, "dataset_kwargs": row.options, "dataset_name": None}
    kind = row.format or format_of(row.source)
    if kind is not None:
        if kind not in OPTIONS:
            raise DataError(f"format {kind!r}: use json, csv or parquet")
        files = located(row.source, folder)
        return {
            "dataset_path": kind,
            "dataset_name": None,
            "dataset_kwargs": {**row.options, "data_files": files},
        }
    if not _HUB_ID.fullmatch(row.source):
        raise DataError(
            f"source {redact(row.source)!r}: neither a hub id nor a file whose ending tells its "
            "format; give `format` (json, csv or parquet)"
        )
    return {
        "dataset_path": row.source,
        "dataset_name": row.config,
        "dataset_kwargs": row.options,
    }


def _records(path: str) -> Iterator[tuple[str, Any]]:
    """(place, entry) of the table; what is no entry is left to be found out."""
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in (".yaml", ".yml"):
        with in_words(redact(path)):
            yield from _yaml(path)
        return
    kind = format_of(path)
    if kind is None:
        raise DataError(f"{redact(path)}: a manifest is .yaml, .jsonl, .csv or .parquet")
    for row in read_file(path, kind, {"field": "datasets"} if suffix == ".json" else None):
        yield row.where, row.error if row.values is None else row.values


def _yaml(path: str) -> Iterator[tuple[str, Any]]:
    filesystem, name = filesystem_of(path)
    with filesystem.open(name, "rb") as file:
        text = file.read(min(MOST_BYTES, filesystem.size(name) or 0) + 1)
    try:
        values = parsed_yaml(text)
    except (yaml.YAMLError, ValueError) as error:
        raise DataError(f"not YAML: {yaml_fault(error)}") from None
    if isinstance(values, dict):
        values = values.get("datasets")
    if not isinstance(values, list):
        raise DataError("expected a list of data sets, or one under `datasets`")
    for number, row in enumerate(values, 1):
        yield f"{redact(path)}, entry {number}", row
