"""Engines of confidence: token ids in, how sure the model is out.

An engine is made once per actor and scores one shard of one data set at a time.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from taskeff.config import CosLowConfig, ModelConfig, ScoringConfig
from taskeff.coslow.confidence import (
    Confidence,
    Metric,
    confidence_of,
    prompt_room,
    score_confidence,
    truncated,
)
from taskeff.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Prompts = Sequence[Sequence[int]]


class ConfidenceEngine(Protocol):
    """What scores prompts."""

    @property
    def model(self) -> PreTrainedModel | None:
        """The model it holds, which then takes gradients too; None if it has none of ours."""
        ...

    def score(
        self, prompts: Prompts, *, stop_ids: Sequence[int], max_new_tokens: int
    ) -> Sequence[Confidence]:
        """One answer per prompt, in order.

        A TaskeffError or ValueError is taken as the fault of a row: the shard is then scored row
        by row and the rows that raise are left without a confidence. Any other exception leaves
        the shard unscored, to be tried again by the next run.
        """
        ...


EngineFactory = Callable[[ModelConfig, CosLowConfig, ScoringConfig], ConfidenceEngine]
"""Makes an engine; pickled to the actors that call it."""


def held_model(config: ModelConfig, scoring: ScoringConfig) -> PreTrainedModel:
    """The model as an actor holds it: on its share of a GPU, or on so many threads."""
    import torch

    from taskeff.models import check_cuda, load_model

    check_cuda(scoring.gpus_per_actor or 0)
    torch.set_num_threads(scoring.threads_per_actor)
    return load_model(config, None if scoring.gpus_per_actor else "cpu")


def in_this_process(scoring: ScoringConfig) -> ScoringConfig:
    """`scoring` where no actor is started: on this machine's GPU if it has one, and on as many
    threads as the process has been given."""
    import torch

    return scoring.model_copy(
        update={
            "gpus_per_actor": scoring.gpus_per_actor or float(torch.cuda.is_available()),
            "threads_per_actor": torch.get_num_threads(),
        }
    )


class BuiltinEngine:
    """`score_confidence` with the model held in this process."""

    def __init__(self, config: ModelConfig, settings: CosLowConfig, scoring: ScoringConfig):
        self.settings = settings
        self.model: PreTrainedModel = held_model(config, scoring)

    def score(
        self, prompts: Prompts, *, stop_ids: Sequence[int], max_new_tokens: int
    ) -> list[Confidence]:
        """See `ConfidenceEngine`."""
        return score_confidence(
            self.model,
            prompts,
            stop_ids=stop_ids,
            max_new_tokens=max_new_tokens,
            metric=self.settings.confidence_metric,
            max_tokens=self.settings.max_tokens_per_pack,
            on_long=self.settings.on_long,
        )


class VLLMEngine:
    """The same token ids through vLLM, confidence from its log-probabilities.

    Its gradients are another actor's: vLLM takes the whole GPU.
    """

    model = None

    def __init__(self, config: ModelConfig, settings: CosLowConfig, scoring: ScoringConfig):
        from vllm import LLM  # type: ignore[import-not-found]

        from taskeff.models import load_architecture

        self.settings = settings
        self._architecture = load_architecture(config)
        self._engine = LLM(
            model=config.path,
            revision=config.revision,
            dtype=config.dtype,
            enable_prefix_caching=True,
            tensor_parallel_size=int(scoring.gpus_per_actor or 1),
            # Pure greedy decoding: no repetition penalty from the model's own settings.
            generation_config="vllm",
            logprobs_mode="raw_logprobs",
            skip_tokenizer_init=True,
        )

    def score(
        self, prompts: Prompts, *, stop_ids: Sequence[int], max_new_tokens: int
    ) -> list[Confidence]:
        """See `ConfidenceEngine`."""
        from vllm import SamplingParams  # type: ignore[import-not-found]

        room = prompt_room(self._architecture, max_new_tokens)
        if self.settings.on_long == "truncate" and room is not None:
            prompts = [truncated(prompt, room) for prompt in prompts]
        asked = SamplingParams(
            temperature=0.0,
            max_tokens=max_new_tokens,
            logprobs=1,
            stop_token_ids=list(stop_ids),
            detokenize=False,
        )
        inputs = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        outputs = self._engine.generate(inputs, asked, use_tqdm=False)
        stops, metric = frozenset(stop_ids), self.settings.confidence_metric
        answers = (one.outputs[0] for one in outputs)
        return [answer_confidence(one.token_ids, one.logprobs, stops, metric) for one in answers]


def answer_confidence(
    tokens: Sequence[int],
    logprobs: Sequence[Mapping[int, Any]],
    stops: Collection[int],
    metric: Metric,
) -> Confidence:
    """The confidence of one greedy answer of vLLM's, as `score_confidence` defines it.

    Args:
        logprobs: per token, token id -> an object with `logprob`; the chosen token is among them.
    """
    probs: list[float] = []
    for token, given in zip(tokens, logprobs, strict=True):
        if int(token) in stops:
            break
        probs.append(math.exp(float(given[int(token)].logprob)))
    return confidence_of(probs, metric)


def engine_of(scoring: ScoringConfig) -> EngineFactory:
    """The engine that the settings name.

    Raises:
        ConfigError: vLLM is not installed, or an actor has no whole GPU.
    """
    if scoring.engine == "builtin":
        return BuiltinEngine
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError("scoring.engine vllm needs the extra: pip install 'taskeff[vllm]'")
    gpus = scoring.gpus_per_actor or 0
    if gpus < 1 or gpus % 1:
        raise ConfigError(f"scoring.gpus_per_actor {gpus:g}: vllm takes whole GPUs, at least 1")
    return VLLMEngine
