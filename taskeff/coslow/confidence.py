"""Prompts -> per-row confidence: how sure the model is of its own greedy answer. No labels."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

import numpy as np
from transformers import PreTrainedConfig, PreTrainedModel

from taskeff.lm.generate import greedy
from taskeff.models import window

Metric = Literal["mean_top_prob", "ppl"]
OnLong = Literal["skip", "truncate"]
NO_ANSWER = "the model ended its turn without an answer"


class Confidence(NamedTuple):
    """One row's confidence, or the reason why it has none.

    `value` grows with confidence for both metrics: under `ppl` it is minus the perplexity.
    """

    value: float | None
    reason: str | None = None


def score_confidence(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    stop_ids: Collection[int],
    max_new_tokens: int = 30,
    metric: Metric = "mean_top_prob",
    max_tokens: int = 4096,
    on_long: OnLong = "skip",
) -> list[Confidence]:
    """The confidence of each prompt's greedy answer, in order (arXiv 2512.24991).

    `mean_top_prob` is the mean probability of the chosen tokens, end-of-turn excluded; `ppl` the
    perplexity over the same tokens, which under greedy decoding is exp(-mean log top-1).

    Args:
        prompts: token ids of rows that may share batches.
        max_tokens: tokens of KV cache held at once.
        on_long: what to do with a prompt that exceeds the model's window: leave the row without a
            confidence, or cut out its middle.

    Raises:
        DataError: a prompt that is empty or of another vocabulary, by its place.
    """
    room = prompt_room(model.config, max_new_tokens)
    if on_long == "truncate" and room is not None:
        prompts = [truncated(prompt, room) for prompt in prompts]
    fits = [k for k, prompt in enumerate(prompts) if room is None or len(prompt) <= room]
    answers = greedy(
        model,
        [prompts[k] for k in fits],
        max_new_tokens=max_new_tokens,
        stop_ids=stop_ids,
        max_tokens=max_tokens,
        numbers=fits,
    )
    found = {
        k: confidence_of(answer.top_probs, metric) for k, answer in zip(fits, answers, strict=True)
    }
    return [
        found[k] if k in found else Confidence(None, too_long(len(prompt), room))
        for k, prompt in enumerate(prompts)
    ]


def prompt_room(architecture: PreTrainedConfig, max_new_tokens: int) -> int | None:
    """Tokens that a prompt may have beside its answer; None where the model has no window."""
    limit = window(architecture)
    return None if limit is None else limit - max_new_tokens


def too_long(tokens: int, room: int | None) -> str:
    """Why a prompt has no confidence, and what helps."""
    return (
        f"{tokens} prompt tokens exceed the {room} there is room for; shorten doc_to_text, or cut "
        "with on_long truncate (--on-long)"
    )


def truncated(prompt: Sequence[int], room: int) -> Sequence[int]:
    """`prompt` with its middle cut out where it has more than `room` tokens."""
    if len(prompt) <= room or room < 2:
        return prompt
    # The instruction stands at the start, the generation prompt at the end.
    return [*prompt[: room // 2], *prompt[len(prompt) - (room - room // 2) :]]


def confidence_of(probs: Sequence[float], metric: Metric) -> Confidence:
    """The confidence of an answer whose greedy tokens had these probabilities; none without any."""
    if not len(probs):
        return Confidence(None, NO_ANSWER)
    if metric == "mean_top_prob":
        return Confidence(float(np.mean(probs)))
    return Confidence(-float(np.exp(-np.log(probs).mean())))
