"""A file of unlabelled rows -> its task file, for whoever has no task file yet."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePath

import yaml
from pydantic import ValidationError

from taskeff.errors import ConfigError, DataError, StorageError, redact
from taskeff.schema import reasons
from taskeff.storage import Store
from taskeff.tasks.readers import format_of
from taskeff.tasks.spec import TaskSpec
from taskeff.tasks.templates import column

TASK_FILE = "task.yaml"


def task_name(path: str) -> str:
    """The file's name without its endings, fit to name a task."""
    stem = PurePath(path).stem
    kept = "".join(c if (c.isalnum() and c.isascii()) or c in "._-" else "-" for c in stem)
    return kept if kept.strip(".") else "task"


def _beside(data: str, out: Path) -> str:
    # Where a folder is a link, `..` is that of where it leads.
    return data if "://" in data else os.path.relpath(os.path.realpath(data), os.path.realpath(out))


def write_task(
    out: Path, data: str, text: str, choices: Sequence[str] = (), instruction: str | None = None
) -> Path:
    """The task file of the rows in `data`, written to `out`; no label is named.

    Args:
        data: CSV, JSON or Parquet, a pattern or a URI.
        text: the column with the question, or a template.
        instruction: default: to answer with one of the choices.

    Raises:
        DataError: a file of no known kind, or a choice that cannot be one.
        ConfigError: another task file is there.
    """
    kind = format_of(data)
    if kind is None:
        raise DataError(
            f"{redact(data)}: its ending tells no format; name a .csv, .tsv, .json, .jsonl or "
            ".parquet file, or write a task file"
        )
    if instruction is None and choices:
        instruction = f"Answer with exactly one of these words: {', '.join(choices)}."
    fields = {
        "task": task_name(data),
        "dataset_path": kind,
        "dataset_kwargs": {"data_files": _beside(data, out)},
        "description": instruction or "",
        "doc_to_text": text if "{{" in text else column(text),
        **({"doc_to_choice": list(choices)} if choices else {}),
    }
    try:
        TaskSpec.model_validate(fields)
    except ValidationError as error:
        raise DataError(f"{redact(data)}: {reasons(error)}") from None
    path = out / TASK_FILE
    content = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=100)
    try:
        if path.exists() and path.read_text(encoding="utf-8") != content:
            raise ConfigError(
                f"{path} is there already and says something else; give another --out, or select "
                f"with --task {path}"
            )
        Store(str(out)).write_bytes(content.encode(), TASK_FILE)
    except (OSError, StorageError) as error:
        raise ConfigError(f"{path} cannot be written: {error}; give another --out") from None
    return path
