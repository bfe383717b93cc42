"""A manifest of candidate data sets -> entries; what is wrong with an entry is its own problem.

YAML, JSON lines, CSV or Parquet, one entry per row. An entry names a bundled task or a task file,
or says where rows come from and which columns hold text and label. docs/rank.md lists the fields.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from taskeff.errors import DataError, TaskeffError
from taskeff.storage import redact, safe_part
from taskeff.tasks.task import TaskSpec, load_spec

FORMATS = {".jsonl": "json", ".ndjson": "json", ".json": "json", ".csv": "csv"}
FORMATS |= {".parquet": "parquet", ".pq": "parquet"}
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
        return json.loads(value) if isinstance(value, str) else value


def load_manifest(path: str, *, strict: bool = False) -> Manifest:
    """Every entry of the manifest at `path` (a file or any fsspec URI).

    Args:
        strict: a bad entry is an error, rather than listed in `problems`.

    Raises:
        DataError: the manifest cannot be read or has no usable entry, or `strict` and one is bad.
    """
    path = str(path)
    entries: list[Entry] = []
    problems: list[Problem] = []
    seen: set[str] = set()
    for place, values in _records(path):
        where = f"{redact(path)}, {place}"
        name = str(values.get("name", "")) if isinstance(values, Mapping) else ""
        try:
            entry = _entry(values, path.rsplit("/", 1)[0] if "/" in path else ".")
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


def _entry(values: Any, folder: str) -> Entry:
    if not isinstance(values, Mapping):
        raise DataError(f"expected the fields of a data set, got {type(values).__name__}")
    # Tables write what is not given as an empty or missing cell.
    given = {str(key): value for key, value in values.items() if not _is_blank(value)}
    try:
        row = _Row.model_validate(given)
        spec, labelled = _spec(row, folder)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors()]
        raise DataError("; ".join(lines)) from None
    except ValueError as error:
        raise DataError(f"options: not JSON: {error}") from None
    if row.labels in (None, "source"):
        return Entry(spec, labelled, None, row.price)
    labels = None if row.labels == "none" else _located(row.labels, folder)
    return Entry(spec, False, labels, row.price)


def _is_blank(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _spec(row: _Row, folder: str) -> tuple[TaskSpec, bool]:
    """The entry's task, and whether its rows have labels."""
    fields = _template(row, folder) | _source(row, folder)
    if not fields.get("dataset_path"):
        raise DataError("give `source` (a file, URI or hub id) or `task`")
    if row.split != "train" or "training_split" not in fields:
        fields["training_split"] = row.split
    for key, value in (("description", row.description), ("doc_to_choice", row.choices)):
        if value is not None:
            fields[key] = value
    if row.max_new_tokens is not None:
        fields["max_new_tokens"] = row.max_new_tokens
    # Only the pool counts here; where a task has other splits, its data set may lack them.
    fields |= {"task": safe_part(row.name), "test_split": None, "validation_split": None}
    labelled = "doc_to_target" in fields
    # A task must say what an answer is; nobody asks an unlabelled one.
    fields.setdefault("doc_to_target", fields["doc_to_text"])
    return TaskSpec.model_validate(fields), labelled


def _template(row: _Row, folder: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if row.task is not None:
        is_file = row.task.endswith((".yaml", ".yml"))
        fields = load_spec(_located(row.task, folder) if is_file else row.task).model_dump()
    if row.text_column is not None:
        fields["doc_to_text"] = _column(row.text_column)
    if row.doc_to_text is not None:
        fields["doc_to_text"] = row.doc_to_text
    if row.label_column is not None:
        fields["doc_to_target"] = _column(row.label_column)
    if row.doc_to_target is not None:
        fields["doc_to_target"] = row.doc_to_target
    if "doc_to_text" not in fields:
        raise DataError("give `text_column`, `doc_to_text` or `task`")
    return fields


def _column(name: str) -> str:
    return "{{ doc[" + json.dumps(name, ensure_ascii=False) + "] }}"


def _source(row: _Row, folder: str) -> dict[str, Any]:
    if row.source is None:
        return {"dataset_kwargs": row.options} if row.options else {}
    if row.source.startswith("builder:"):
        return {"dataset_path": row.source, "dataset_kwargs": row.options, "dataset_name": None}
    suffixes = PurePosixPath(row.source.split("?", 1)[0]).suffixes[-2:]
    found = [FORMATS[suffix.lower()] for suffix in suffixes if suffix.lower() in FORMATS]
    kind = row.format or (found[-1] if found else None)
    if kind is not None:
        if kind not in FORMATS.values():
            raise DataError(f"format {kind!r}: use json, csv or parquet")
        files = _located(row.source, folder)
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


def _located(path: str, folder: str) -> str:
    """Relative to the manifest; a file that is not there is found out now."""
    if "://" in path:
        return path
    full = path if path.startswith("/") else f"{folder}/{path}"
    if "://" not in full and not any(mark in full for mark in "*["):
        filesystem, name = fsspec.core.url_to_fs(full)
        if not filesystem.exists(name):
            raise DataError(f"{full} does not exist")
        return str(name)
    return full


def _records(path: str) -> Iterator[tuple[str, Any]]:
    suffix = PurePosixPath(path).suffix.lower()
    readers = {".csv": _csv, ".parquet": _parquet, ".jsonl": _lines, ".ndjson": _lines}
    readers |= {".yaml": _yaml, ".yml": _yaml, ".json": _yaml}
    if suffix not in readers:
        raise DataError(f"{redact(path)}: a manifest is .yaml, .jsonl, .csv or .parquet")
    try:
        opened: Any = fsspec.open(path, "rb")
        with opened as file:
            data = file.read()
        yield from readers[suffix](data)
    except FileNotFoundError:
        raise DataError(f"{redact(path)}: no such manifest") from None
    except (OSError, ValueError, ImportError, yaml.YAMLError, csv.Error, pa.ArrowException) as err:
        raise DataError(f"{redact(path)}: not a readable manifest: {redact(str(err))}") from None


def _yaml(data: bytes) -> Iterator[tuple[str, Any]]:
    values = yaml.safe_load(data.decode("utf-8-sig"))
    if isinstance(values, dict):
        values = values.get("datasets")
    if not isinstance(values, list):
        raise ValueError("expected a list of data sets, or one under `datasets`")
    for number, row in enumerate(values, 1):
        yield f"entry {number}", row


def _lines(data: bytes) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(data.decode("utf-8-sig").split("\n"), 1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except ValueError:
                yield f"line {number}", line


def _csv(data: bytes) -> Iterator[tuple[str, Any]]:
    reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""))
    for row in reader:
        yield f"line {reader.line_num}", row


def _parquet(data: bytes) -> Iterator[tuple[str, Any]]:
    for number, row in enumerate(pq.read_table(io.BytesIO(data)).to_pylist(), 1):
        yield f"row {number}", row
