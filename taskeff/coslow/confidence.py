"""Pool -> per-example confidence: how sure the model is of its own greedy answer. No labels."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from taskeff.errors import ConfigError
from taskeff.generate import greedy

Metric = Literal["mean_top_prob", "ppl"]


@dataclass(frozen=True)
class Confidence:
    """One row's confidence; `value` is None, with a `reason`, where the model answers nothing.

    `value` grows with confidence for both metrics: under `ppl` it is minus the perplexity.
    """

    value: float | None
    tokens: tuple[int, ...]
    reason: str | None = None


def score_confidence(
    model: torch.nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    stop_ids: Collection[int],
    max_new_tokens: int = 30,
    metric: Metric = "mean_top_prob",
    max_tokens: int = 4096,
) -> list[Confidence]:
    """The confidence of each prompt's greedy answer, in input order (arXiv 2512.24991).

    `mean_top_prob` is the mean probability of the chosen tokens, end-of-turn excluded; `ppl` the
    perplexity over the same tokens, which under greedy decoding is exp(-mean log top-1).

    Raises:
        ConfigError: an unknown metric.
    """
    if metric not in ("mean_top_prob", "ppl"):
        raise ConfigError(f"confidence metric {metric!r}: use mean_top_prob or ppl")
    generations = greedy(
        model, prompts, max_new_tokens=max_new_tokens, stop_ids=stop_ids, max_tokens=max_tokens
    )
    found: list[Confidence] = []
    for generation in generations:
        if not generation.tokens:
            found.append(Confidence(None, (), "the model ended its turn without an answer"))
            continue
        probs = np.asarray(generation.top_probs, dtype=np.float64)
        mean = float(probs.mean()) if metric == "mean_top_prob" else -_perplexity(probs)
        found.append(Confidence(mean, generation.tokens))
    return found


def _perplexity(probs: np.ndarray) -> float:
    return float(np.exp(-np.log(probs).mean()))
