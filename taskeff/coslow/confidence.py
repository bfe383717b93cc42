"""Pool -> per-example confidence: how sure the model is of its own greedy answer. No labels."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np
from transformers import PreTrainedModel

from taskeff.errors import ConfigError, DataError
from taskeff.lm.generate import Generation, greedy

Metric = Literal["mean_top_prob", "ppl"]
OnLong = Literal["error", "skip", "truncate"]
CHUNK = 1024  # rows sorted by length and held at once


@dataclass(frozen=True)
class Confidence:
    """One row's confidence; `value` is None, with a `reason`, where there is no answer.

    `value` grows with confidence for both metrics: under `ppl` it is minus the perplexity. Of
    several sampled answers `value` is the mean, `repeats` holds each one's, None for an empty
    one, and `tokens` are the first's.
    """

    value: float | None
    tokens: tuple[int, ...]
    reason: str | None = None
    repeats: tuple[float | None, ...] = ()


def score_confidence(
    model: PreTrainedModel,
    prompts: Iterable[Sequence[int]],
    *,
    stop_ids: Collection[int],
    max_new_tokens: int = 30,
    metric: Metric = "mean_top_prob",
    max_tokens: int = 4096,
    on_long: OnLong = "error",
    repeats: int = 1,
    seed: int = 0,
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
            repeats=repeats,
            seed=seed,
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
    repeats: int = 1,
    seed: int = 0,
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
        repeats: 1 is greedy; more scores as many sampled answers, drawn by `seed`.

    Raises:
        ConfigError: an unknown metric or `on_long`, or `repeats` below 1.
        DataError: an empty pool, or a prompt that is empty, too long or of another vocabulary,
            by its row.
    """
    if metric not in ("mean_top_prob", "ppl"):
        raise ConfigError(f"confidence metric {metric!r}: use mean_top_prob or ppl")
    if on_long not in ("error", "skip", "truncate"):
        raise ConfigError(f"on_long {on_long!r}: use error, skip or truncate")
    if repeats < 1:
        raise ConfigError(f"repeats is {repeats}; score at least one answer")
    seeds = [None] if repeats == 1 else [f"{seed}:{k}" for k in range(repeats)]

    def answer(rows: Sequence[Sequence[int]], numbers: Sequence[int]) -> list[list[Generation]]:
        return [
            greedy(
                model,
                rows,
                max_new_tokens=max_new_tokens,
                stop_ids=stop_ids,
                max_tokens=max_tokens,
                sample_seed=one,
                numbers=numbers,
            )
            for one in seeds
        ]

    room = prompt_room(model, max_new_tokens)
    return _scored(iter(prompts), answer, metric, on_long, room, chunk)


def prompt_room(model: PreTrainedModel, max_new_tokens: int) -> int | None:
    """Tokens that a prompt may have beside its answer; None where the model has no window."""
    config = model.config.get_text_config(decoder=True)
    window = getattr(config, "max_position_embeddings", None)
    return None if window is None else window - max_new_tokens


def truncated(prompt: Sequence[int], room: int) -> Sequence[int]:
    """`prompt` with its middle cut out where it has more than `room` tokens."""
    if len(prompt) <= room:
        return prompt
    # The instruction stands at the start, the generation prompt at the end.
    return [*prompt[: room // 2], *prompt[len(prompt) - (room - room // 2) :]]


def _scored(
    prompts: Iterator[Sequence[int]],
    answer: Callable[[Sequence[Sequence[int]], Sequence[int]], list[list[Generation]]],
    metric: Metric,
    on_long: OnLong,
    room: int | None,
    chunk: int,
) -> Iterator[Confidence]:
    done = 0
    while rows := list(islice(prompts, chunk)):
        fitted = [_fit(done + k, row, room, on_long) for k, row in enumerate(rows)]
        numbers = [done + k for k, row in enumerate(fitted) if row is not None]
        answers = answer([row for row in fitted if row is not None], numbers)
        generations = zip(*answers, strict=True)
        for given, row in zip(rows, fitted, strict=True):
            if row is None:
                reason = f"{len(given)} prompt tokens exceed the {room} there is room for"
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
        return truncated(prompt, room)
    raise DataError(
        f"pool row {index}: {len(prompt)} prompt tokens exceed the {room} that the model's window "
        "leaves for a prompt; shorten the text, or skip or truncate long rows"
    )


def _confidence(generations: Sequence[Generation], metric: Metric) -> Confidence:
    values = [_value(generation, metric) for generation in generations]
    known = [value for value in values if value is not None]
    tokens = generations[0].tokens
    repeats = tuple(values) if len(values) > 1 else ()
    if not known:
        return Confidence(None, tokens, "the model ended its turn without an answer", repeats)
    return Confidence(float(np.mean(known)), tokens, None, repeats)


def _value(generation: Generation, metric: Metric) -> float | None:
    if not generation.tokens:
        return None
    if metric == "mean_top_prob":
        return float(np.mean(generation.top_probs))
    return -float(np.exp(-np.log(generation.probs).mean()))
