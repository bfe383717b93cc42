"""One data set's way to CoS-Low: shards of confidence, selection, labels, gradients, result.

`select`, `score`, `calibrate` and `rank` all go this way. Each step publishes its file last and
keeps a digest of what it was made from, so that it runs again only when that changed:

    part-*.parquet   confidences of a shard                      (taskeff.coslow.shards)
    pool.json        the pool's parts, as its reader met them
    selection.json   the examples drawn, with the labels their source has
    to_annotate.*    the same to fill in, where labels are missing
    cosines.parquet  pairwise gradient cosines
    coslow.json      CoS-Low
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from taskeff.config import CosLowConfig
from taskeff.coslow.gradients import Gram, LoRA, gradient_gram
from taskeff.coslow.handoff import Form, hand_off, read_labels, to_annotate
from taskeff.coslow.pool import Pool, PoolAbout, prompter_of
from taskeff.coslow.select import select
from taskeff.coslow.shards import Shard, publish_shard, read_parts, read_shards
from taskeff.coslow.statistic import coslow, few
from taskeff.errors import DataError, StorageError, TaskeffError
from taskeff.storage import Store, digest, redact
from taskeff.tasks.task import Example

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from taskeff.coslow.engines import ConfidenceEngine
    from taskeff.tasks.prompts import Prompter, TokenizedExample

SCHEMA = 1
RESULT = "coslow.json"
MOST_PROBLEMS = 20  # bad rows quoted in pool.json; all of them are in the part files
TABLE = (
    "task",
    "cos_low",
    "cos_low_low",
    "cos_low_high",
    "mean_cosine",
    "balanced_cosine",
    "random_cosine",
    "mean_confidence",
    "gradient_norm",
    "n_pool",
    "n_examples",
    "n_labels",
    "seed",
)
"""What of a result goes into tables, and what one that was measured before 0.2 has."""

Status = Literal["awaiting_labels", "measure", "measured", "failed"]


@dataclass(frozen=True)
class DataSet:
    """A data set on its way; pickles to what is needed to read it, never to its rows.

    Attributes:
        folder: of its artefacts.
        made_with: `signal_hash`: what a pool was scored with.
        fingerprint: see `taskeff.coslow.fingerprint`.
        shard_rows: rows scored, published and resumed together.
        labels: a filled hand-off file; default the one in `folder`.
        control: take the gradients of as many random examples too.
        form: what the files to label are written for.
    """

    name: str
    pool: Pool
    folder: Store
    settings: CosLowConfig
    made_with: str
    fingerprint: Mapping[str, Any]
    shard_rows: int
    labels: str | None = None
    control: bool = False
    form: Form = "jsonl"


@dataclass(frozen=True)
class Outcome:
    """How far a data set came; `reason` says what is missing or wrong, `measure` that an actor that
    holds the model has to take its gradients."""

    name: str
    status: Status
    reason: str = ""


@dataclass(frozen=True)
class Scored:
    """So many more rows of a data set have a confidence, or a reason for having none."""

    name: str
    rows: int


@dataclass(frozen=True)
class Waiting:
    """Why labels are not there yet."""

    reason: str


def published(folder: Store, name: str) -> dict[str, Any] | None:
    """A step's file, None where it is missing or was cut off."""
    try:
        return folder.read_json(name)
    except StorageError:
        return None


# Confidence


def shards_to_score(data: DataSet, tokenizer: PreTrainedTokenizerBase) -> Iterator[Shard]:
    """The pool's shards; after the last one `pool.json` says which parts make the whole.

    Raises:
        DataError: the source as a whole cannot be read, or has too few rows that can be used (where
            one shard holds them all, before it is given).
    """
    about, rows, stamp = data.pool.about, data.pool.rows(), data.pool.stamp()
    parts: list[str] = []
    usable, problems = 0, list[str]()
    held: Shard | None = None
    for shard in read_shards(
        rows,
        about.prompter(tokenizer),
        rows_per_shard=data.shard_rows,
        max_new_tokens=about.new_tokens(data.settings),
        made_with=data.made_with,
    ):
        if held is not None:
            yield held
        held = shard
        parts.append(shard.part)
        usable += shard.errors.count("")
        if not problems:
            bad = (f"{w}: {e}" for w, e in zip(shard.wheres, shard.errors, strict=True) if e)
            problems += [next(bad, "")]
    if held is None or usable < data.settings.n_examples:
        why = f" ({problems[0]})" if problems and problems[0] else "; add rows"
        raise DataError(
            f"{data.name}: the pool has {usable} rows that can be used, fewer than the "
            f"{data.settings.n_examples} to label{why}"
        )
    yield held
    found = {
        "made_with": data.made_with,
        "stamp": stamp,
        "parts": parts,
        "duplicates": rows.duplicates,
        "left_out": getattr(rows, "left_out", 0),
        "note": getattr(rows, "note", None),
    }
    data.folder.write_json(found, "pool.json")


def scored_pool(data: DataSet) -> dict[str, Any] | None:
    """`pool.json`, if it is of the source as it is now and all its parts are there."""
    found = published(data.folder, "pool.json")
    if found is None or found["made_with"] != data.made_with or found["stamp"] != data.pool.stamp():
        return None
    return found if set(found["parts"]) <= set(data.folder.names()) else None


# Selection


def draw(data: DataSet) -> dict[str, Any]:
    """`selection.json`, made where it is missing or of other inputs.

    Raises:
        DataError: the pool is not scored, or too few of its rows have a confidence.
    """
    pool = scored_pool(data)
    if pool is None:
        raise DataError(f"{data.name}: the pool is not scored yet; run again")
    about, settings = data.pool.about, data.settings
    made_from = digest([pool, about.labelled_by, settings.model_dump(), data.control, data.form])
    found = published(data.folder, "selection.json")
    if found is not None and found.get("made_from") == made_from:
        return found
    numbers, values = read_parts(data.folder, pool["parts"])
    problems = _problems(data.folder, pool["parts"])
    try:
        chosen = select(
            values,
            n=settings.n_examples,
            quantile=settings.quantile,
            seed=settings.seed,
            strategy=settings.strategy,
        )
    except DataError as error:
        why = f"; {problems[0]}" if problems else ""
        raise DataError(f"{data.name}: {error}{why}") from None
    at = [*chosen.indices, *_control(data, len(values))]
    examples = data.pool.examples([numbers[i] for i in at])
    n = settings.n_examples
    known = [value for value in values if value is not None]
    records = to_annotate(examples[:n], [values[i] for i in chosen.indices], about.choices)
    found = {
        "schema": SCHEMA,
        "made_from": made_from,
        "task": data.name,
        **_prompts(about),
        "max_new_tokens": about.new_tokens(settings),
        "settings": settings.model_dump(mode="json"),
        "fingerprint": dict(data.fingerprint),
        "pool": {
            "rows": len(values),
            **{key: pool[key] for key in ("duplicates", "left_out", "note")},
        },
        "unscored": len(values) - len(known),
        "problems": problems,
        "n_scored": len(known),
        "mean_confidence": float(np.mean(known)),
        "candidates": chosen.candidates,
        "quantile": chosen.quantile,
        "rows": records,
        "control": [vars(example) for example in examples[n:]],
        "handed_out": None,
    }
    if any(not record["label"] for record in records):
        files = hand_off(records, data.form, about.choices)
        for name, content in files.items():
            data.folder.write_bytes(content, name)
        name = next(iter(files))
        found["handed_out"] = {"name": name, "digest": digest(files[name].decode())}
    data.folder.write_json(found, "selection.json")
    return found


def _prompts(about: PoolAbout) -> dict[str, Any]:
    return {
        "rendered": about.rendered,
        "description": about.description,
        "choices": list(about.choices) if about.choices else None,
    }


def _control(data: DataSet, size: int) -> list[int]:
    """Places of as many examples drawn from the whole pool."""
    if not data.control:
        return []
    rng = random.Random(f"{data.settings.seed}:{data.name}:random")
    return rng.sample(range(size), data.settings.n_examples)


def _problems(folder: Store, parts: Sequence[str]) -> list[str]:
    """The first rows without a confidence, each with its reason."""
    found: list[str] = []
    for part in parts:
        table = folder.read_table(part)
        bad = table.filter(pa.compute.is_null(table["confidence"])).to_pylist()
        found += [f"{row['where']}: {row['reason']}" for row in bad[:MOST_PROBLEMS]]
        if len(found) >= MOST_PROBLEMS:
            break
    return found[:MOST_PROBLEMS]


# Labels


def labelled(
    folder: Store, selection: Mapping[str, Any], labels: str | None = None
) -> list[Example] | Waiting:
    """The drawn examples with their labels, or what is missing.

    Args:
        labels: a filled file; default the one that was handed out.
    """
    records, handed_out = selection["rows"], selection["handed_out"]
    if labels is None and handed_out is None:
        return [Example(r["id"], r["text"], r["label"]) for r in records]
    where = labels or f"{folder.uri}/{handed_out['name']}"
    try:
        if labels is None:
            data = folder.read_bytes(handed_out["name"])
            if digest(data.decode(errors="replace")) == handed_out["digest"]:
                left = sum(not record["label"] for record in records)
                return Waiting(f"label the {left} rows of {redact(where)}")
        return read_labels(where, records)
    except TaskeffError as error:
        return Waiting(str(error))


# Gradients


def measure(
    folder: Store,
    selection: Mapping[str, Any],
    examples: Sequence[Example],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, Any]:
    """CoS-Low of the labelled examples, published as `coslow.json`.

    Raises:
        TaskeffError: an example cannot be encoded, or too few have a gradient.
    """
    encoded, control = encode(selection, examples, model.config, tokenizer)
    settings = CosLowConfig.model_validate(selection["settings"])
    grams = [gram_of(model, rows, settings) for rows in (encoded, control) if rows]
    return conclude(folder, selection, examples, *grams)


def encode(
    selection: Mapping[str, Any],
    examples: Sequence[Example],
    architecture: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[list[TokenizedExample], list[TokenizedExample]]:
    """The drawn examples and those of the control as token ids."""
    from taskeff.coslow.confidence import prompt_room, truncated

    prompter: Prompter = prompter_of(
        tokenizer, selection["description"], rendered=selection["rendered"]
    )
    room = None
    if selection["settings"]["on_long"] == "truncate":
        room = prompt_room(architecture, selection["max_new_tokens"])

    def encoded(rows: Sequence[Example]) -> list[TokenizedExample]:
        found = [prompter.encode_example(row, end_of_turn=False) for row in rows]
        if room is None:
            return found
        return [replace(one, prompt_ids=tuple(truncated(one.prompt_ids, room))) for one in found]

    return encoded(examples), encoded([Example(**row) for row in selection["control"]])


def gram_of(
    model: PreTrainedModel, examples: Sequence[TokenizedExample], settings: CosLowConfig
) -> Gram:
    """The examples' Gram matrix as the settings ask for it."""
    return gradient_gram(
        model,
        examples,
        projection=projection_of(settings),
        targets=settings.targets,
        memory=settings.gradient_memory,
    )


def projection_of(settings: CosLowConfig) -> LoRA | None:
    """The random projection of gradients, None for true ones."""
    if settings.rank is None:
        return None
    return LoRA(settings.rank, settings.alpha, settings.seed)


def conclude(
    folder: Store,
    selection: Mapping[str, Any],
    examples: Sequence[Example],
    gram: Gram,
    control: Gram | None = None,
) -> dict[str, Any]:
    """CoS-Low from the examples' Gram matrix, published as `coslow.json`."""
    labels = [example.target or "" for example in examples]
    found = coslow(gram.cosines, ids=gram.ids, labels=labels if few(labels) else None)
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "inputs": inputs_of(selection, examples),
        "task": selection["task"],
        "cos_low": found.median,
        "cos_low_low": found.interval[0],
        "cos_low_high": found.interval[1],
        "mean_cosine": found.mean,
        "mean_cosine_low": found.mean_interval[0],
        "mean_cosine_high": found.mean_interval[1],
        "level": found.level,
        "balanced_cosine": found.balanced,
        "random_cosine": coslow(control.cosines, ids=control.ids).median if control else None,
        "mean_confidence": selection["mean_confidence"],
        "gradient_norm": float(np.mean(np.sqrt(np.diag(gram.matrix)))),
        "n_pool": selection["pool"]["rows"],
        "n_examples": found.n_examples,
        "n_labels": len(selection["choices"] or ()) or None,
        "labels_seen": len(set(labels)),
        "excluded": list(found.excluded),
        "duplicates": [list(pair) for pair in found.duplicates],
        "seed": selection["settings"]["seed"],
        "fingerprint": selection["fingerprint"],
    }
    folder.write_table(cosine_table(gram), "cosines.parquet")
    folder.write_json(result, RESULT)
    return result


def inputs_of(selection: Mapping[str, Any], examples: Sequence[Example]) -> str:
    """A digest of what a result is made from."""
    return digest([selection["made_from"], [(e.id, e.text, e.target) for e in examples]])


def cosine_table(gram: Gram) -> pa.Table:
    """A row per example: its id, loss, gradient norm, and cosine with example "0", "1", ..."""
    columns: dict[str, Any] = {
        "id": list(gram.ids),
        "loss": gram.losses,
        "norm": np.sqrt(np.diag(gram.matrix)),
    }
    return pa.table(columns | {str(k): column for k, column in enumerate(gram.cosines.T)})


# The whole way


@dataclass(frozen=True)
class State:
    """An outcome with what it rests on, where that is there."""

    outcome: Outcome
    selection: Mapping[str, Any] | None = None
    examples: Sequence[Example] | None = None


def state_of(data: DataSet) -> State:
    """How far a data set with a scored pool is: its examples are drawn and labels looked for."""
    try:
        selection = draw(data)
    except TaskeffError as error:
        return State(Outcome(data.name, "failed", str(error)))
    examples = labelled(data.folder, selection, data.labels)
    if isinstance(examples, Waiting):
        return State(Outcome(data.name, "awaiting_labels", examples.reason), selection)
    result = published(data.folder, RESULT)
    done = result is not None and result.get("inputs") == inputs_of(selection, examples)
    return State(Outcome(data.name, "measured" if done else "measure"), selection, examples)


class Worker:
    """Takes data sets as far as they go, shard by shard, with an engine that is loaded once.

    Args:
        gradients: whether to take gradients where the engine holds a model.
    """

    def __init__(
        self,
        engine: ConfidenceEngine,
        tokenizer: PreTrainedTokenizerBase,
        *,
        gradients: bool = True,
    ):
        self.engine, self.tokenizer = engine, tokenizer
        self._gradients = gradients

    def score(self, data: DataSet, shard: Shard) -> None:
        """Score and publish a shard."""
        publish_shard(self.engine, shard, data.folder)

    def finish(self, data: DataSet) -> Outcome | None:
        """Draw, look for labels and take gradients, once every shard is there; None before."""
        if scored_pool(data) is None:
            return None
        found, model = state_of(data), self.engine.model
        if found.outcome.status != "measure" or model is None or not self._gradients:
            return found.outcome
        assert found.selection is not None and found.examples is not None
        try:
            measure(data.folder, found.selection, found.examples, model, self.tokenizer)
        except TaskeffError as error:
            return Outcome(data.name, "failed", str(error))
        return Outcome(data.name, "measured")

    def run(self, data: DataSet) -> Iterator[Scored | Outcome]:
        """The whole way of one data set in this process; the last thing given is its outcome."""
        try:
            if scored_pool(data) is None:
                for shard in shards_to_score(data, self.tokenizer):
                    self.score(data, shard)
                    yield Scored(data.name, len(shard.indices))
        except TaskeffError as error:
            yield Outcome(data.name, "failed", str(error))
            return
        found = self.finish(data)
        yield found or Outcome(data.name, "failed", "its shards are not all there; run again")


def read_confidences(folder: Store) -> tuple[list[int], list[float | None]]:
    """(numbers of the rows in their source, confidences) of a scored pool, in the pool's order."""
    return read_parts(folder, folder.read_json("pool.json")["parts"])
