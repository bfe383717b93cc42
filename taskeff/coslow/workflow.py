"""A task of the user's own in two steps: select what to label, score it once labelled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from transformers import PreTrainedModel

from taskeff.config import CosLowConfig, ModelConfig
from taskeff.coslow.confidence import (
    Confidence,
    OnLong,
    prompt_room,
    stream_confidence,
    truncated,
)
from taskeff.coslow.gradients import LoRA, gradient_gram
from taskeff.coslow.handoff import Form, hand_off, read_labels, to_annotate
from taskeff.coslow.measure import cosine_table, fingerprint
from taskeff.coslow.pool import Pool, file_pool, prompter_of, task_pool
from taskeff.coslow.select import Strategy
from taskeff.coslow.select import select as draw
from taskeff.coslow.statistic import coslow, few
from taskeff.errors import ConfigError, DataError, ModelError
from taskeff.models import family_identity, load_model, load_tokenizer
from taskeff.storage import Store
from taskeff.tasks.prompts import Prompter, TokenizedExample
from taskeff.tasks.task import Example

Progress = Callable[[int, int], None]
"""Called with the rows scored so far and the rows there are."""


def select(
    model: ModelConfig,
    task: str | Path | None,
    out: str | Path,
    settings: CosLowConfig | None = None,
    *,
    pool: str | Path | None = None,
    strategy: Strategy = "low",
    on_long: OnLong = "error",
    repeats: int = 1,
    form: Form = "jsonl",
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Choose the pool rows to label; write the files to label and `selection.json` to `out`.

    Args:
        task: a bundled task's name or a task file; its training split is the pool, no label read.
        pool: instead of a task, a file of rendered prompts; see `taskeff.coslow.pool.file_pool`.
        on_long, repeats: see `taskeff.coslow.confidence.stream_confidence`.
        form: what the files to label are written for.

    Returns:
        The records handed out: id, text, text_hash, confidence, choices, label (empty).

    Raises:
        TaskeffError: a bad task, pool or model, or an `out` that cannot be written or holds files
            that were handed out before.
    """
    settings = settings or CosLowConfig()
    rows = _pool(task, pool, settings)
    store = _fresh(out, form)
    tokenizer = load_tokenizer(model)
    measured = fingerprint(family_identity(model, tokenizer), model, settings)
    loaded = load_model(model)
    scored = _confidences(
        loaded, rows, rows.prompter(tokenizer), settings, on_long, repeats, progress
    )
    values = [one.value for one in scored]
    chosen = draw(
        values,
        n=settings.n_examples,
        quantile=settings.quantile,
        seed=settings.seed,
        strategy=strategy,
    )
    picked = rows.pick(chosen.indices)
    records = to_annotate(picked, [values[i] for i in chosen.indices], rows.choices)
    files = hand_off(records, form, rows.choices)
    for name, content in files.items():
        store.write_bytes(content, name)
    store.write_table(_confidence_table(rows, scored), "confidence.parquet")
    found = {
        "task": rows.name,
        "rendered": rows.rendered,
        "description": rows.description,
        "pool": rows.size,
        "pool_hash": rows.hash,
        "without_confidence": dict(Counter(one.reason for one in scored if one.reason)),
        "strategy": strategy,
        "seed": chosen.seed,
        "quantile": chosen.quantile,
        "candidates": chosen.candidates,
        "on_long": on_long,
        "max_new_tokens": _new_tokens(rows, settings),
        "settings": settings.model_dump(),
        "fingerprint": _departures(measured, rows, strategy, repeats),
        "handed_out": next(iter(files)),
        "rows": records,
    }
    store.write_json(found, "selection.json")
    return records


def _fresh(out: str | Path, form: Form) -> Store:
    """A writable store without files of an earlier selection: they may hold labels by now."""
    store = Store(str(out))
    store.check_writable()
    for name in hand_off([], form, None):
        if store.exists(name):
            raise ConfigError(
                f"{store.path(name)} is there already and may hold labels; "
                "give another folder or remove it"
            )
    return store


def _pool(task: str | Path | None, pool: str | Path | None, settings: CosLowConfig) -> Pool:
    if (task is None) == (pool is None):
        raise ConfigError("give either a task (--task) or a file of rendered prompts (--pool)")
    rows = task_pool(task, settings) if task is not None else file_pool(pool or "", settings)
    if rows.size < settings.n_examples:
        raise DataError(
            f"{rows.name}: the pool has {rows.size} rows, fewer than the {settings.n_examples} to "
            "label; add rows"
        )
    return rows


def _new_tokens(rows: Pool, settings: CosLowConfig) -> int:
    return min(settings.max_new_tokens, rows.max_new_tokens)


def _confidences(
    model: PreTrainedModel,
    rows: Pool,
    prompter: Prompter,
    settings: CosLowConfig,
    on_long: OnLong,
    repeats: int,
    progress: Progress | None,
) -> list[Confidence]:
    stream = stream_confidence(
        model,
        (prompter.prompt_ids(row.text) for row in rows),
        stop_ids=prompter.stop_ids(),
        max_new_tokens=_new_tokens(rows, settings),
        metric=settings.confidence_metric,
        max_tokens=settings.max_tokens_per_pack,
        on_long=on_long,
        repeats=repeats,
        seed=settings.seed,
    )
    found: list[Confidence] = []
    for one in stream:
        found.append(replace(one, tokens=()))  # a large pool's answers would fill the memory
        if progress is not None:
            progress(len(found), rows.size)
    return found


def _confidence_table(rows: Pool, scored: list[Confidence]) -> pa.Table:
    return pa.table(
        {
            "id": [row.id for row in rows],
            "confidence": pa.array([one.value for one in scored], pa.float64()),
            "repeats": pa.array([one.repeats for one in scored], pa.list_(pa.float64())),
            "reason": pa.array([one.reason for one in scored], pa.string()),
        }
    )


def _departures(
    measured: dict[str, Any], rows: Pool, strategy: Strategy, repeats: int
) -> dict[str, Any]:
    """The fingerprint, with what this selection did otherwise than calibrations do."""
    found = {**measured, "strategy": strategy, "confidence_repeats": repeats}
    if rows.rendered:  # by which template is not known
        del found["template_hash"]
    return found


def score(model: ModelConfig, out: str | Path, labels: str | Path | None = None) -> dict[str, Any]:
    """CoS-Low of the examples that `select` handed out to `out`, now labelled.

    Args:
        labels: the filled file, in any of the formats; default the one that `select` wrote.

    Returns:
        cos_low (the median), mean_cosine, balanced_cosine (the median with labels weighted
        equally; None where they are many), the intervals of the first two, ids of excluded and
        pairs of equal examples, fingerprint; also written to `coslow.json`. The N x N cosines,
        losses and gradient norms go to `cosines.parquet`.

    Raises:
        TaskeffError: labels missing or changed, or another model than `select` used.
    """
    store = Store(str(out))
    chosen = store.read_json("selection.json")
    path = Path(labels) if labels else Path(store.path(chosen["handed_out"]))
    examples = read_labels(path, chosen["rows"])
    settings = CosLowConfig.model_validate(chosen["settings"])
    tokenizer = load_tokenizer(model)
    _check_model(chosen["fingerprint"], family_identity(model, tokenizer))
    prompter = prompter_of(tokenizer, chosen["description"], rendered=chosen["rendered"])
    loaded = load_model(model)
    gram = gradient_gram(
        loaded,
        _encoded(loaded, prompter, examples, chosen),
        projection=LoRA(settings.rank, settings.alpha, settings.seed),
        targets=settings.targets,
        memory=settings.gradient_memory,
    )
    given = [example.target or "" for example in examples]
    found = coslow(gram.cosines, ids=gram.ids, labels=given if few(given) else None)
    result = {
        "task": chosen["task"],
        "cos_low": found.median,
        "mean_cosine": found.mean,
        "balanced_cosine": found.balanced,
        "interval": list(found.interval),
        "mean_interval": list(found.mean_interval),
        "level": found.level,
        "n_examples": found.n_examples,
        "excluded": list(found.excluded),
        "duplicates": [list(pair) for pair in found.duplicates],
        "fingerprint": chosen["fingerprint"] | {"dtype": model.dtype},
    }
    store.write_table(cosine_table(gram), "cosines.parquet")
    store.write_json(result, "coslow.json")
    return result


def _encoded(
    model: PreTrainedModel, prompter: Prompter, examples: list[Example], chosen: Mapping[str, Any]
) -> list[TokenizedExample]:
    encoded = [prompter.encode_example(example, end_of_turn=False) for example in examples]
    room = prompt_room(model, chosen["max_new_tokens"])
    if chosen["on_long"] != "truncate" or room is None:
        return encoded
    return [replace(one, prompt_ids=tuple(truncated(one.prompt_ids, room))) for one in encoded]


def _check_model(selected: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    now = {**identity, "template_hash": identity["chat_template"]}
    for name in ("model", "revision", "template_hash"):
        if name in selected and selected[name] != now[name]:
            raise ModelError(
                f"these rows were selected with {name} {selected[name]!r}, this is {now[name]!r}; "
                "score with the model that `select` used, or select again"
            )
