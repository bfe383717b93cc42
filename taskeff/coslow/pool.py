"""An unlabelled pool: a task's rows, or a file of rendered prompts in the published layout.

A pool is read more than once (checked, scored, the chosen rows fetched) and never held whole where
it is a file of JSON lines.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taskeff.config import CosLowConfig
from taskeff.errors import ConfigError, DataError
from taskeff.storage import safe_part
from taskeff.tasks.examples import Example
from taskeff.tasks.prompts import Prompter, RenderedPrompter
from taskeff.tasks.readers import format_of, read_file
from taskeff.tasks.rows import PoolStream
from taskeff.tasks.spec import load_spec

FIELD = "input_text"  # of the published files: the prompt, its chat template applied


@dataclass(frozen=True)
class Pool:
    """Rows to choose from, in an order of their own.

    Attributes:
        name: of the task.
        rendered: the rows are prompts already.
        description: the task's instruction, "" where the rows are prompts.
        choices: the labels that count, None where any does.
        max_new_tokens: a limit of the task's own.
        size: number of rows.
        hash: a digest of every row's id and text.
    """

    name: str
    rendered: bool
    description: str
    choices: tuple[str, ...] | None
    max_new_tokens: int
    size: int
    hash: str
    _rows: Callable[[], Iterable[Example]] = field(repr=False)

    def __iter__(self) -> Iterator[Example]:
        return iter(self._rows())

    def pick(self, indices: Collection[int]) -> list[Example]:
        """The rows at `indices`, in the pool's order."""
        wanted = frozenset(indices)
        return [row for index, row in enumerate(self) if index in wanted]

    def prompter(self, tokenizer: Any) -> Prompter:
        """What turns its rows into token ids."""
        return prompter_of(tokenizer, self.description, rendered=self.rendered)


def prompter_of(tokenizer: Any, description: str, *, rendered: bool) -> Prompter:
    """The prompter of a pool, rendered already or not."""
    return RenderedPrompter(tokenizer) if rendered else Prompter(tokenizer, description)


def task_pool(task: str | Path, settings: CosLowConfig) -> Pool:
    """The training split of a bundled task or a task file; no label is read.

    Raises:
        DataError: naming the task, the row and the field.
    """
    spec = load_spec(task)
    stream = PoolStream(spec, settings.seed, settings.pool_cap, least=settings.n_examples)
    rows: list[Example] = []
    for row in stream:
        if row.error:
            raise DataError(f"{spec.label}: {row.where}: {row.error}")
        rows.append(Example(row.id, row.text))
    if not rows:
        raise DataError(f"{spec.label}: the pool is empty; add rows")
    return Pool(
        name=spec.task,
        rendered=False,
        description=spec.description,
        choices=spec.doc_to_choice,
        max_new_tokens=spec.max_new_tokens,
        size=len(rows),
        hash=_digest(rows)[1],
        _rows=lambda: rows,
    )


def file_pool(path: str | Path, settings: CosLowConfig) -> Pool:
    """A published pool: rows with `input_text`, as a JSON list or lines, CSV or Parquet.

    Raises:
        DataError: the file cannot be read or is empty, or a row cannot be read, lacks
            `input_text` or has one that is no text, by its place.
        ConfigError: `pool_cap` is set; such a pool is scored whole.
    """
    path = Path(path)
    if settings.pool_cap is not None:
        raise ConfigError("a pool file is scored whole: leave pool_cap (--pool-cap) out")

    def rows() -> Iterator[Example]:
        for row in read_file(str(path), format_of(str(path)) or "json"):
            if row.values is None:
                raise DataError(f"{row.where}: {row.error}; give a list or one object per line")
            yield Example(f"row-{row.index}", text_of(row.values, row.where))

    size, hash_ = _digest(rows())
    if not size:
        raise DataError(f"{path}: the pool is empty; add unlabelled rows")
    return Pool(
        name=_name(path),
        rendered=True,
        description="",
        choices=None,
        max_new_tokens=settings.max_new_tokens,
        size=size,
        hash=hash_,
        _rows=rows,
    )


def text_of(row: Mapping[str, Any], where: str) -> str:
    """The prompt of one row of a published file.

    Raises:
        DataError: it has none, or one that is empty or no text.
    """
    if FIELD not in row:
        raise DataError(f"{where}: no field {FIELD!r}; it has {', '.join(map(str, row)) or 'none'}")
    text = row[FIELD]
    if not isinstance(text, str):
        raise DataError(f"{where}: {FIELD!r} is {text!r:.40}, not text; quote it")
    if not text.strip():
        raise DataError(f"{where}: {FIELD!r} is empty; fill the row or drop it")
    return text


def _digest(rows: Iterable[Example]) -> tuple[int, str]:
    sha = hashlib.sha256()
    size = 0
    for row in rows:
        sha.update(json.dumps([row.id, row.text]).encode())
        size += 1
    return size, sha.hexdigest()[:16]


def _name(path: Path) -> str:
    kept: Sequence[str] = [
        c if (c.isalnum() and c.isascii()) or c in "._-" else "-" for c in path.stem
    ]
    return safe_part("".join(kept))
