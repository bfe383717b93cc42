"""Engines of confidence: token ids in, how sure the model is out. The place to plug in another.

An engine is made once per actor, by a factory that takes the run's configuration and its CoS-Low
settings; it then scores one shard of one data set at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from taskeff.config import CosLowConfig, RankConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Prompts = Sequence[Sequence[int]]


class Scored(NamedTuple):
    """A row's confidence, or the reason why it has none."""

    value: float | None
    reason: str | None = None


class ConfidenceEngine(Protocol):
    """What scores prompts."""

    def score(
        self, prompts: Prompts, *, stop_ids: Sequence[int], max_new_tokens: int
    ) -> Sequence[Scored]:
        """One answer per prompt, in order.

        A TaskeffError or ValueError is taken as the fault of a row: the shard is then scored row
        by row and the rows that raise are left without a confidence. Any other exception leaves
        the shard unscored, to be tried again by the next run.
        """
        ...


EngineFactory = Callable[[RankConfig, CosLowConfig], ConfidenceEngine]
"""Makes an engine; pickled to the actors that call it."""


def held_model(config: RankConfig) -> PreTrainedModel:
    """The model as an actor holds it: on its share of a GPU, or on so many threads."""
    import torch

    from taskeff.models import load_model

    torch.set_num_threads(config.scoring.threads_per_actor)
    return load_model(config.model, None if config.scoring.gpus_per_actor else "cpu")


class BuiltinEngine:
    """`score_confidence` with the model held in this process."""

    def __init__(self, config: RankConfig, settings: CosLowConfig):
        self.settings = settings
        self.model = held_model(config)

    def score(
        self, prompts: Prompts, *, stop_ids: Sequence[int], max_new_tokens: int
    ) -> list[Scored]:
        """See `ConfidenceEngine`; a prompt longer than the model's window has no confidence."""
        from taskeff.coslow.confidence import score_confidence

        found = score_confidence(
            self.model,
            prompts,
            stop_ids=stop_ids,
            max_new_tokens=max_new_tokens,
            metric=self.settings.confidence_metric,
            max_tokens=self.settings.max_tokens_per_pack,
            on_long="skip",
        )
        return [Scored(one.value, one.reason) for one in found]
