"""A scored pool -> the examples drawn, with their labels, or files to ask for them."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from taskeff.coslow.data_set import POOL_FACTS, DataSet, published, scored_pool
from taskeff.coslow.handoff import hand_off, read_labels, to_annotate
from taskeff.coslow.pool import PoolAbout
from taskeff.coslow.select import select
from taskeff.coslow.selection import SELECTION
from taskeff.coslow.shards import read_parts
from taskeff.errors import DataError, StorageError, TaskeffError, redact
from taskeff.storage import Store, digest
from taskeff.tasks.account import BEYOND_CAP, HELD_OUT, NOT_KEPT, REPEATED, UNSCORED, Account
from taskeff.tasks.prompts import Prompter
from taskeff.tasks.task import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SCHEMA = 1
QUANTILES = ("0", "0.1", "0.5", "0.9", "1")
"""Shares of a pool that the summary of its confidences names."""


@dataclass(frozen=True)
class Waiting:
    """Why labels are not there yet."""

    reason: str


def drawn(data: DataSet) -> dict[str, Any] | None:
    """`selection.json`, None where it is missing or of other inputs."""
    pool, found = scored_pool(data), published(data.folder, SELECTION)
    if pool is None or found is None or found.get("made_from") != _made_from(data, pool):
        return None
    return found


def draw(data: DataSet, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """`selection.json`, made where it is missing or of other inputs.

    Raises:
        DataError: the pool is not scored, too few of its rows have a confidence, or labels for the
            rows drawn could not be read back or encoded.
    """
    if (found := drawn(data)) is not None:
        return found
    pool = scored_pool(data)
    if pool is None:
        raise DataError(f"{data.name}: the pool is not scored yet; run again")
    about, settings = data.pool.about, data.settings
    numbers, values, problems = read_parts(data.folder, pool["parts"])
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
        "made_from": _made_from(data, pool),
        "task": data.name,
        **_prompts(about),
        "max_new_tokens": about.new_tokens(settings),
        "settings": settings.model_dump(mode="json"),
        "fingerprint": dict(data.fingerprint),
        "pool": {"rows": len(values), **{key: pool[key] for key in POOL_FACTS}},
        "unscored": len(values) - len(known),
        "problems": problems,
        "n_scored": len(known),
        "mean_confidence": float(np.mean(known)),
        "confidence": dict(zip(QUANTILES, np.quantile(known, [*map(float, QUANTILES)]).tolist())),
        "candidates": chosen.candidates,
        "quantile": chosen.quantile,
        "rows": records,
        "control": [vars(example) for example in examples[n:]],
        "handed_out": None,
    }
    files: dict[str, bytes] = {}
    if any(not record["label"] for record in records):
        rehearse(data, records, about.prompter(tokenizer))
        files = hand_off(records, data.form, about.choices, about.description)
        name = next(iter(files))
        found["handed_out"] = {"name": name, "digest": digest(files[name].decode())}
    _publish(data, files, found)
    return found


def account_of(selection: Mapping[str, Any]) -> Account:
    """What became of the pool's rows, by `selection.json`."""
    pool = selection["pool"]
    left_out = {
        REPEATED: pool["duplicates"],
        NOT_KEPT: pool["left_out"],
        HELD_OUT: pool["held_out"],
        BEYOND_CAP: pool["beyond_cap"],
        UNSCORED: selection["unscored"],
    }
    return Account(pool["rows_in"], left_out, selection["problems"], pool["escaped"])


def _publish(data: DataSet, files: Mapping[str, bytes], selection: Mapping[str, Any]) -> None:
    """The files to label and then, as their marker, `selection.json`; none where one fails.

    Raises:
        DataError: a file of that name holds something else, labels perhaps.
    """
    folder = data.folder
    for name, content in files.items():
        # What a call that was killed left behind is the same to the byte.
        if folder.find(name) not in (None, content):
            raise DataError(
                f"{folder.path(name)} is there already, with other rows or with labels; move it "
                "away, or give another folder"
            )
    try:
        for name, content in files.items():
            folder.write_bytes(content, name)
        folder.write_json(selection, SELECTION)
    except StorageError:
        for name in files:
            folder.remove(name)
        raise


def rehearse(data: DataSet, records: Sequence[Mapping[str, Any]], prompter: Prompter) -> None:
    """Every choice once and every row once the whole way: written, read back, encoded.

    So what `score` would refuse is said before anybody has labelled.

    Raises:
        DataError: naming the row, and what would go wrong.
    """
    about = data.pool.about
    answers = about.choices or ("a",)
    turns = itertools.cycle(answers)
    unlabelled = sum(not record["label"] for record in records)
    for _ in range(math.ceil(len(answers) / unlabelled)):
        filled = [{**record, "label": record["label"] or next(turns)} for record in records]
        files = hand_off(filled, data.form, about.choices, about.description)
        name, content = next(iter(files.items()))
        try:
            for example in read_labels(name, records, content):
                prompter.encode_example(example, end_of_turn=False)
        except TaskeffError as error:
            raise DataError(
                f"{data.name}: labels could not be used, so no row is handed out: {error}"
            ) from None


def _made_from(data: DataSet, pool: Mapping[str, Any]) -> str:
    about = data.pool.about
    settings = data.settings.model_dump()
    return digest([pool, about.labelled_by, settings, data.control, data.form])


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
