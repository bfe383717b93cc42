"""A candidate data set from scored pool to CoS-Low: select, find or ask for labels, measure.

Each step publishes its file last and keeps a digest of what it was made from, so that a step runs
again only when that changed:

    part-*.parquet     confidences of a shard           (taskeff.coslow.shards)
    pool.json          all parts of the pool are there
    selection.json     the examples drawn, with the labels their source has
    to_annotate.jsonl  the same to fill in, where labels are missing
    cosines.parquet    pairwise gradient cosines
    result.json        CoS-Low
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from taskeff.config import CosLowConfig
from taskeff.coslow.handoff import read_labels, to_annotate, write_lines
from taskeff.coslow.select import select
from taskeff.coslow.shards import read_parts
from taskeff.coslow.statistic import coslow
from taskeff.errors import DataError, StorageError, TaskeffError
from taskeff.storage import Store, digest, redact
from taskeff.tasks.examples import Example
from taskeff.tasks.manifest import Entry
from taskeff.tasks.readers import SourceRow
from taskeff.tasks.rows import PoolStream, row_id, row_text
from taskeff.tasks.spec import TaskSpec
from taskeff.tasks.templates import render

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SCHEMA = 1
POOL_FIELDS = {
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
"""What of a task decides its pool's confidences; labels may change without scoring it again."""


@dataclass(frozen=True)
class Candidate:
    """An entry of the manifest with the folder of its artefacts and its source's stamp.

    Attributes:
        stamp: `taskeff.tasks.rows.source_stamp` of its source, at the start of the run.
    """

    entry: Entry
    folder: Store
    stamp: tuple[Mapping[str, str], ...]
    seed: int

    @property
    def name(self) -> str:
        """The data set's name."""
        return self.entry.name


def candidate_hash(
    spec: TaskSpec,
    identity: Mapping[str, Any],
    dtype: str,
    settings: CosLowConfig,
    *,
    seed: int,
    rows_per_shard: int,
) -> str:
    """A digest of everything but the source's content that decides a pool's scores."""
    return digest(
        {
            "schema": SCHEMA,
            "pool": spec.model_dump(mode="json", include=POOL_FIELDS),
            "model": dict(identity),
            "dtype": dtype,
            "coslow": settings.deciding(),
            "seed": seed,
            "rows_per_shard": rows_per_shard,
        }
    )


def published(folder: Store, name: str) -> dict[str, Any] | None:
    """A step's file, None where it is missing or was cut off."""
    if not folder.exists(name):
        return None
    try:
        return folder.read_json(name)
    except StorageError:
        return None


def scored_pool(candidate: Candidate) -> dict[str, Any] | None:
    """`pool.json`, if it is of the source as it is now."""
    found = published(candidate.folder, "pool.json")
    return found if found and found["stamp"] == list(candidate.stamp) else None


def publish_pool(candidate: Candidate, shards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mark the pool as scored, once all its shards are.

    Args:
        shards: `publish_shard`'s answers, in order.
    """
    problems = [problem for shard in shards for problem in shard["problems"]]
    found = {
        "stamp": list(candidate.stamp),
        "parts": [shard["part"] for shard in shards],
        "rows": sum(shard["rows"] for shard in shards),
        "unscored": sum(shard["unscored"] for shard in shards),
        "duplicates": shards[-1]["duplicates"],
        "problems": problems[:20],
    }
    candidate.folder.write_json(found, "pool.json")
    return found


def choose(candidate: Candidate, settings: CosLowConfig) -> dict[str, Any]:
    """Draw the examples of a scored pool, and say what is to be done next.

    Returns:
        dataset, status and reason: `measure` (labels are there), `measured` (so is CoS-Low),
        `awaiting_labels`, or `failed`.
    """
    try:
        selection = _selection(candidate, settings)
        examples, missing = _labelled(candidate, selection)
    except TaskeffError as error:
        return {"dataset": candidate.name, "status": "failed", "reason": str(error)}
    if examples is None:
        return {"dataset": candidate.name, "status": "awaiting_labels", "reason": missing}
    result = published(candidate.folder, "result.json")
    done = result is not None and result["inputs"] == _inputs(selection, examples)
    return {"dataset": candidate.name, "status": "measured" if done else "measure", "reason": ""}


def _selection(candidate: Candidate, settings: CosLowConfig) -> dict[str, Any]:
    """`selection.json`, made where it is missing or of other inputs."""
    pool = scored_pool(candidate)
    if pool is None:
        raise DataError("the pool is not scored yet")
    spec = candidate.entry.spec
    made_from = digest(
        [
            pool["parts"],
            list(candidate.stamp),
            spec.doc_to_target if candidate.entry.labelled else None,
            spec.doc_to_choice,
        ]
    )
    found = published(candidate.folder, "selection.json")
    if found is not None and found["made_from"] == made_from:
        return found
    numbers, values = read_parts(candidate.folder, pool["parts"])
    chosen = select(values, n=settings.n_examples, quantile=settings.quantile, seed=settings.seed)
    drawn = [numbers[i] for i in chosen.indices]
    rows = PoolStream(spec, candidate.seed).pick(drawn)
    examples = [_example(spec, rows.get(number), number) for number in drawn]
    records = to_annotate(examples, [values[i] for i in chosen.indices], spec.doc_to_choice)
    labels = [_label(spec, rows[number]) if candidate.entry.labelled else None for number in drawn]
    known = [value for value in values if value is not None]
    found = {
        "made_from": made_from,
        "rows": records,
        "labels": labels,
        "candidates": chosen.candidates,
        "mean_confidence": float(np.mean(known)),
        "n_scored": len(known),
        "seed": settings.seed,
    }
    if None in labels:
        partly = [
            {**record, "label": label or ""} for record, label in zip(records, labels, strict=True)
        ]
        lines = write_lines(partly)
        found["handed_out"] = digest(lines.decode())
        candidate.folder.write_bytes(lines, "to_annotate.jsonl")
    candidate.folder.write_json(found, "selection.json")
    return found


def _example(spec: TaskSpec, row: SourceRow | None, number: int) -> Example:
    if row is None or row.values is None:
        raise DataError(f"row {number} is gone: the source changed while it was scored; run again")
    return Example(row_id(spec, number), row_text(spec, row.values, row.where))


def _label(spec: TaskSpec, row: SourceRow) -> str | None:
    """The label the source has for a row, None where its cell is empty.

    Raises:
        DataError: a label outside the choices, or one that cannot be rendered, by file and line.
    """
    try:
        label = render(spec.doc_to_target or "", row.values or {}, field="doc_to_target")
    except DataError as error:
        raise DataError(f"{row.where}: {error}") from None
    if label and spec.doc_to_choice is not None and label not in spec.doc_to_choice:
        raise DataError(f"{row.where}: label {label!r} is not one of {list(spec.doc_to_choice)}")
    return label or None


def _labelled(
    candidate: Candidate, selection: Mapping[str, Any]
) -> tuple[list[Example] | None, str]:
    """The drawn examples with their labels; or None, and what is missing."""
    records, labels = selection["rows"], selection["labels"]
    if None not in labels:
        return [Example(r["id"], r["text"], label) for r, label in zip(records, labels)], ""
    given = candidate.entry.labels
    path = given or candidate.folder.path("to_annotate.jsonl")
    if given is None:
        data = candidate.folder.read_bytes("to_annotate.jsonl").decode(errors="replace")
        if digest(data) == selection["handed_out"]:
            return None, f"label the {labels.count(None)} rows of {redact(path)}"
    try:
        return _read(path, candidate.folder if given is None else None, records), ""
    except TaskeffError as error:
        return None, str(error)


def _read(path: str, folder: Store | None, records: Sequence[Mapping[str, Any]]) -> list[Example]:
    """`read_labels` of a local file or a URI."""
    where = PurePosixPath(path)
    store = folder or Store(path.rsplit("/", 1)[0])
    if store.is_local:
        return read_labels(Path(path), records)
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / where.name
        copy.write_bytes(store.read_bytes(where.name))
        return read_labels(copy, records)


def _inputs(selection: Mapping[str, Any], examples: Sequence[Example]) -> str:
    return digest([selection["made_from"], [(e.id, e.text, e.target) for e in examples]])


def measure(
    candidate: Candidate,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: CosLowConfig,
) -> dict[str, Any]:
    """CoS-Low of the labelled examples, published as `result.json`.

    Raises:
        TaskeffError: `choose` has not found labels, or they cannot be used.
    """
    from taskeff.coslow.gradients import LoRA, gradient_gram
    from taskeff.coslow.measure import cosine_table
    from taskeff.tasks.prompts import Prompter

    selection = _selection(candidate, settings)
    examples, missing = _labelled(candidate, selection)
    if examples is None:
        raise DataError(missing)
    prompter = Prompter(tokenizer, candidate.entry.spec.description)
    gram = gradient_gram(
        model,
        [prompter.encode_example(example, end_of_turn=False) for example in examples],
        projection=LoRA(settings.rank, settings.alpha, settings.seed),
        targets=settings.targets,
        memory=settings.gradient_memory,
    )
    found = coslow(
        gram.cosines,
        ids=[example.id for example in examples],
        labels=[example.target or "" for example in examples],
    )
    result = {
        "inputs": _inputs(selection, examples),
        "cos_low": found.median,
        "interval": list(found.interval),
        "level": found.level,
        "mean_cosine": found.mean,
        "balanced": found.balanced,
        "gradient_norm": float(np.mean(np.sqrt(np.diag(gram.matrix)))),
        "n_examples": found.n_examples,
        "excluded": list(found.excluded),
        "same_gradient": len(found.duplicates),
        "labels_seen": len({example.target for example in examples}),
    }
    candidate.folder.write_table(cosine_table(gram), "cosines.parquet")
    candidate.folder.write_json(result, "result.json")
    return result
