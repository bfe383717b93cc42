"""Pool -> per-example confidence: how sure the model is of its own greedy answer. No labels."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np
from transformers import PreTrainedModel

from taskeff.errors import ConfigError, DataError
from taskeff.generate import Generation, greedy

Metric = Literal["mean_top_prob", "ppl"]
OnLong = Literal["error", "skip", "truncate"]
CHUNK = 1024  # rows sorted by length and held at once


@dataclass(frozen=True)
class Confidence:
    """One row's confidence; `value` is None, with a `reason`, where there is no answer.

    `value` grows with confidence for both metrics: under `ppl` it is minus the perplexity.
    """

    value: float | None
    tokens: tuple[int, ...]
    reason: str | None = None


def score_confidence(
    model: PreTrainedModel,
    prompts: Iterable[Sequence[int]],
    *,
    stop_ids: Collection[int],
    max_new_tokens: int = 30,
    metric: Metric = "mean_top_prob",
    max_tokens: int = 4096,
    on_long: OnLong = "error",
) -> list[Confidence]:
    """`stream_confidence` over a pool that fits in memory."""
    return list(
        stream_confidence(
            model,
            prompts,
            stop_ids=stop_ids,
            max_new_tokens=max_new_tokens,
            metric=metric,
            max_tokens=max_tokens,
            on_long=on_long,
        )
    )


def stream_confidence(
    model: PreTrainedModel,
    prompts: Iterable[Sequence[int]],
    *,
    stop_ids: Collection[int],
    max_new_tokens: int = 30,
    metric: Metric = "mean_top_prob",
    max_tokens: int = 4096,
    on_long: OnLong = "error",
    chunk: int = CHUNK,
) -> Iterator[Confidence]:
    """The confidence of each prompt's greedy answer, in input order (arXiv 2512.24991).

    `mean_top_prob` is the mean probability of the chosen tokens, end-of-turn excluded; `ppl` the
    perplexity over the same tokens, which under greedy decoding is exp(-mean log top-1).

    Args:
        prompts: token ids; any iterable, of which `chunk` rows are in memory at a time.
        max_tokens: tokens of KV cache held at once.
        on_long: what to do with a prompt that exceeds the model's window: refuse the pool, leave
            the row without a confidence, or cut out its middle.

    Raises:
        ConfigError: an unknown metric or `on_long`.
        DataError: an empty pool, or a prompt that is empty or too long, by its row.
    """
    if metric not in ("mean_top_prob", "ppl"):
        raise ConfigError(f"confidence metric {metric!r}: use mean_top_prob or ppl")
    if on_long not in ("error", "skip", "truncate"):
        raise ConfigError(f"on_long {on_long!r}: use error, skip or truncate")
    return _scored(
        model, iter(prompts), stop_ids, max_new_tokens, metric, max_tokens, on_long, chunk
    )


def _scored(
    model: PreTrainedModel,
    prompts: Iterator[Sequence[int]],
    stop_ids: Collection[int],
    max_new_tokens: int,
    metric: Metric,
    max_tokens: int,
    on_long: OnLong,
    chunk: int,
) -> Iterator[Confidence]:
    config = model.config.get_text_config(decoder=True)
    window = getattr(config, "max_position_embeddings", None)
    room = None if window is None else window - max_new_tokens
    done = 0
    while rows := list(islice(prompts, chunk)):
        fitted = [_fit(done + k, row, room, on_long) for k, row in enumerate(rows)]
        generations = iter(
            greedy(
                model,
                [row for row in fitted if row is not None],
                max_new_tokens=max_new_tokens,
                stop_ids=stop_ids,
                max_tokens=max_tokens,
            )
        )
        for given, row in zip(rows, fitted, strict=True):
            if row is None:
                reason = f"{len(given)} prompt tokens exceed the model's window of {window}"
                yield Confidence(None, (), reason)
            else:
                yield _confidence(next(generations), metric)
        done += len(rows)
    if not done:
        raise DataError("the pool is empty; add unlabelled rows")


def _fit(
    index: int, prompt: Sequence[int], room: int | None, on_long: OnLong
) -> Sequence[int] | None:
    if not len(prompt):
        raise DataError(f"pool row {index}: the prompt is empty")
    if room is None or len(prompt) <= room:
        return prompt
    if on_long == "skip":
        return None
    if on_long == "truncate" and room >= 2:
        # The instruction stands at the start, the generation prompt at the end.
        return [*prompt[: room // 2], *prompt[len(prompt) - (room - room // 2) :]]
    raise DataError(
        f"pool row {index}: {len(prompt)} prompt tokens exceed the {room} that the model's window "
        "leaves for a prompt; shorten the text, or skip or truncate long rows"
    )


def _confidence(generation: Generation, metric: Metric) -> Confidence:
    if not generation.tokens:
        return Confidence(None, (), "the model ended its turn without an answer")
    probs = np.asarray(generation.top_probs, dtype=np.float64)
    perplexity = float(np.exp(-np.log(probs).mean()))
    value = float(probs.mean()) if metric == "mean_top_prob" else -perplexity
    return Confidence(value, generation.tokens)
