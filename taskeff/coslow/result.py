"""Labelled examples -> their gradients' Gram matrix -> CoS-Low, published as `coslow.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from taskeff.config import CosLowConfig
from taskeff.coslow.confidence import prompt_room, truncated
from taskeff.coslow.gradients import Gram, LoRA, gradient_gram
from taskeff.coslow.pool import prompter_of
from taskeff.coslow.statistic import coslow, few
from taskeff.errors import DataError
from taskeff.schema import Artefact, Cosine, Count, Number, Text, Whole, checked
from taskeff.storage import Store, digest
from taskeff.tasks.account import NO_GRADIENT, Account
from taskeff.tasks.task import Example

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from taskeff.tasks.prompts import Prompter, TokenizedExample

SCHEMA = 1
RESULT = "coslow.json"
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


class CosLowResult(Artefact):
    """What `coslow.json` holds at least."""

    task: Text
    cos_low: Cosine
    cos_low_low: Cosine
    cos_low_high: Cosine
    mean_cosine: Cosine
    balanced_cosine: Cosine | None = None
    random_cosine: Cosine | None
    mean_confidence: Number
    gradient_norm: Annotated[Number, Field(ge=0)]
    n_pool: Count
    n_examples: Annotated[Count, Field(ge=2)]
    n_labels: Count | None
    seed: Whole


def read_result(folder: Store, task: str) -> dict[str, Any]:
    """`coslow.json` of the task.

    Raises:
        TaskeffError: it is missing, cut short, no such result or another task's.
    """
    found = folder.read_json(RESULT)
    check_result(task, found, folder.path(RESULT))
    return found


def check_result(task: str, value: Any, where: str) -> None:
    """Refuse what is no CoS-Low of the task; raises DataError with file and field."""
    checked(value, CosLowResult, where)
    if value["task"] != task:
        raise DataError(f"{where}: task: {value['task']!r:.60}, expected {task!r}")


class ScoredDataSet(dict[str, Any]):
    """The content of `coslow.json`, see `taskeff.score`; told in a line."""

    def __repr__(self) -> str:
        low, high = self["cos_low_low"], self["cos_low_high"]
        return (
            f"<ScoredDataSet: {self['task']}, CoS-Low {self['cos_low']:.3f} "
            f"[{low:.2f}, {high:.2f}] ({self['level']:.0%}), {self['n_examples']} examples>"
        )


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
    return conclude(folder, selection, examples, encoded, *grams)


def encode(
    selection: Mapping[str, Any],
    examples: Sequence[Example],
    architecture: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[list[TokenizedExample], list[TokenizedExample]]:
    """The drawn examples and those of the control as token ids."""
    prompter: Prompter = prompter_of(
        tokenizer, selection["description"], rendered=selection["rendered"]
    )

    def encoded(rows: Sequence[Example]) -> list[TokenizedExample]:
        found = [prompter.encode_example(row, end_of_turn=False) for row in rows]
        return fitted(selection, found, architecture)

    return encoded(examples), encoded([Example(**row) for row in selection["control"]])


def fitted(
    selection: Mapping[str, Any],
    examples: Sequence[TokenizedExample],
    architecture: PreTrainedConfig,
) -> list[TokenizedExample]:
    """`examples`, their prompts cut to the model's window where the settings say so."""
    room = prompt_room(architecture, selection["max_new_tokens"])
    if selection["settings"]["on_long"] != "truncate" or room is None:
        return list(examples)
    return [replace(one, prompt_ids=tuple(truncated(one.prompt_ids, room))) for one in examples]


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
    encoded: Sequence[TokenizedExample],
    gram: Gram,
    control: Gram | None = None,
) -> dict[str, Any]:
    """CoS-Low from the examples' Gram matrix, published as `coslow.json`."""
    labels = [example.target or "" for example in examples]
    escaped = sum(one.escaped for one in encoded)
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
        "rows": Account(
            len(examples), {NO_GRADIENT: len(found.excluded)}, escaped=escaped
        ).to_dict(),
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
